"""Protection of the API's edge: limits, security headers, CORS, bodies, idempotency, uploads. ``edge.Protection`` puts it together."""
