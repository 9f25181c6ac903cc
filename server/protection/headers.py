"""Headers of every answer: errors, unknown addresses and refused sockets too.

What a handler says itself wins. OWASP's secure headers project and ASVS 5.0 V3.4 are the source of the list.
"""

from litestar.types import Scope

Headers = list[tuple[bytes, bytes]]

HSTS = (b"strict-transport-security", b"max-age=63072000; includeSubDomains")
NO_STORE = (b"cache-control", b"no-store")

# An API's answers are no documents: nothing in them is to be run, framed or fetched.
_ALWAYS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"permissions-policy",
        b"accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()",
    ),
)


def secured(headers: Headers, scope: Scope, *, https: bool) -> Headers:
    """The answer's headers with what is missing for its safety.

    Args:
        headers: what the handler says, names in lower case.
        scope: the request; a caller in its state makes the answer private.
        https: whether browsers reach us encrypted: HSTS over http is void, and on a developer's machine harmful.
    """
    said = {name for name, _ in headers}
    kept = [(name, value) for name, value in headers if name != b"server"]
    for name, value in _ALWAYS:
        if name in said:
            continue
        if name == b"cross-origin-resource-policy" and _is_for_everybody(headers):
            value = b"cross-origin"  # the one header that follows from another
        kept.append((name, value))
    if https and HSTS[0] not in said:
        kept.append(HSTS)
    if NO_STORE[0] not in said and _is_private(scope):
        kept.append(NO_STORE)
    return kept


def _is_for_everybody(headers: Headers) -> bool:
    """A route such as the widget's script, which lets any site load it."""
    return (b"access-control-allow-origin", b"*") in headers


def _is_private(scope: Scope) -> bool:
    """Whatever is no public route: what it answers depends on who asks, its errors too."""
    handler = scope.get("route_handler")
    return handler is None or not handler.opt.get("public") or scope["state"].get("context") is not None
