"""What a request costs before its handler runs: the whole application against the same handler in a bare one.

ASGI calls in one process, one at a time, so the figure is time on the way and not throughput. The routes differ in one layer each
and take turns in rounds; of each the median over the rounds counts. The caller's session is remembered, as it is
for all but one request in ten seconds.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from litestar import Litestar, Request, get

from server.app import create_app
from server.deps import build_parts
from server.settings import ServerSettings
from storage.sql import text
from tests.load.figures import figure
from tests.support.edge import opened, signed_in
from tests.support.servers import Addresses, settings_for
from tests.support.world import make_tenant

REQUESTS, ROUNDS = 200, 15
NO_LIMITS = "health"  # the class of routes that nobody counts


@get("/bench/edge", opt={"public": True, "limit": NO_LIMITS}, sync_to_thread=False)
def edge() -> str:
    return "ok"


@get("/bench/limiter", opt={"public": True, "limit": "read"}, sync_to_thread=False)
def limiter() -> str:
    return "ok"


@get("/bench/auth", opt={"scopes": ["inbox:read"], "limit": NO_LIMITS}, sync_to_thread=False)
def auth() -> str:
    return "ok"


@get("/bench/counted", opt={"scopes": ["inbox:read"], "limit": "read"}, sync_to_thread=False)
def counted() -> str:
    return "ok"


@get("/bench/whole", opt={"scopes": ["inbox:read"], "limit": "read"})
async def whole(request: Request[Any, Any, Any]) -> str:
    async with request.app.state.database.tenant_session(request.scope["state"]["context"]) as session:
        await session.scalar(text("select 1"))
    return "ok"


@get("/bench/bare", sync_to_thread=False)
def bare() -> str:
    return "ok"


Ask = Callable[[], Awaitable[None]]


def asking(app: Litestar, path: str, headers: dict[str, str]) -> Ask:
    """A function that makes one request.

    Raises:
        AssertionError: by the function, where the answer is not 200.
    """
    called = cast(Any, app)
    raw = [(b"host", b"test"), *((name.encode(), value.encode()) for name, value in headers.items())]

    async def ask() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] == 200, (path, message["status"])

        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": raw,
            "client": ("198.18.0.1", 1),
        }
        await called(scope, receive, send)

    return ask


async def measure(addresses: Addresses, database: str) -> list[dict[str, Any]]:
    """The figures, over a database that the migrations have built; a tenant is added to it."""
    os.environ["RATE_LIMITS"] = (
        '{"read": {"ip": "9000000/1:9000000", "user": "9000000/1:9000000", "tenant": "9000000/1:9000000"}}'
    )
    parts = build_parts("bench", ServerSettings(), settings_for(addresses, database))
    app = create_app(parts)
    for handler in (edge, limiter, auth, counted, whole):
        app.register(handler)
    try:
        async with opened(app):
            tenant = await make_tenant(parts, "guard-overhead")
            headers = signed_in(app, tenant, ("inbox:read",))
            asks = {
                name: asking(app, f"/bench/{name}", headers)
                for name in ("edge", "limiter", "auth", "counted", "whole")
            }
            asks["bare"] = asking(Litestar([bare], openapi_config=None), "/bench/bare", headers)
            times = await _rounds(asks)
    finally:
        await parts.aclose()
    middle = {name: statistics.median(found) for name, found in times.items()}
    return _figures(middle)


async def _rounds(asks: dict[str, Ask]) -> dict[str, list[float]]:
    """Milliseconds a request of each, in each round; one round before is not counted."""
    times: dict[str, list[float]] = {name: [] for name in asks}
    for number in range(ROUNDS + 1):
        for name, ask in asks.items():
            began = time.perf_counter()
            for _ in range(REQUESTS):
                await ask()
            if number:
                times[name].append((time.perf_counter() - began) * 1000 / REQUESTS)
    return times


def _figures(ms: dict[str, float]) -> list[dict[str, Any]]:
    parts = {
        "bare handler": ms["bare"],
        "whole request": ms["whole"],
        "of it the edge (headers, body, request id)": ms["edge"] - ms["bare"],
        "of it limits by address": ms["limiter"] - ms["edge"],
        "of it who is asking, and rights": ms["auth"] - ms["edge"],
        "of it limits by user and tenant": ms["counted"] - ms["auth"] - (ms["limiter"] - ms["edge"]),
        "of it a transaction as the tenant, with select 1": ms["whole"] - ms["counted"],
    }
    return [
        *(figure(f"guard: {name}", value, "ms", ROUNDS * REQUESTS) for name, value in parts.items()),
        figure("guard: whole without transaction against bare", ms["counted"] / ms["bare"], "x", ROUNDS),
        figure("guard: whole against bare", ms["whole"] / ms["bare"], "x", ROUNDS),
    ]


if __name__ == "__main__":
    from tests.load.alone import main

    main("guard_overhead", lambda addresses, database: asyncio.run(measure(addresses, database)))
