"""WHO answers: one model step each; no graph wiring, no HTTP."""
