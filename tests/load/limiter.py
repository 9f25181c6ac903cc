"""The limiter's cost: an application with ours against the same one with Litestar's own middleware on its RedisStore.

Requests per second of CPU, in one run and one process: ASGI calls, 32 at a time, 512 clients by their addresses, limits that nobody reaches
(1,000 a minute for each client, for both), a fresh Redis database for each round. The rounds take turns; the figure is the ratio's median.
Both are asked for their first refusal before, so that it is certain that both limit.
"""

import asyncio
import resource
import statistics
from collections.abc import Awaitable, Callable
from typing import Any, cast

import psutil
from litestar import Litestar, get
from litestar.middleware import DefineMiddleware
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.stores.redis import RedisStore
from redis.asyncio import Redis

from server.errors import render_error
from server.protection.limits import AddressLimitMiddleware, RateLimits, rate_headers
from server.protection.settings import ProtectionSettings
from storage.limits import RateLimiter
from tests.load.figures import figure

CLIENTS, CONCURRENCY, REQUESTS, ROUNDS = 512, 32, 4096, 7
PER_MINUTE = 1000
Asks = Callable[[int], Awaitable[int]]


@get("/", opt={"limit": "public", "public": True}, sync_to_thread=False)
def handler() -> str:
    return "ok"


def app_with_ours(redis_url: str, requests: int) -> tuple[Litestar, RateLimiter]:
    limiter = RateLimiter(redis_url)
    settings = ProtectionSettings(rate_limits={"public": {"ip": f"{requests}/60:{requests}"}})
    limits = RateLimits(limiter, settings)
    app = Litestar(
        [handler],
        middleware=[DefineMiddleware(AddressLimitMiddleware, limits=limits)],
        before_send=[_headers],
        exception_handlers={Exception: render_error},
        openapi_config=None,
    )
    return app, limiter


async def _headers(message: Any, scope: Any) -> None:
    """What the edge does for the limits' headers, as Litestar's middleware sends its own."""
    if message["type"] == "http.response.start" and (found := scope["state"].get("rate_limit")):
        message["headers"] = [*message.get("headers", ()), *rate_headers(found)]


def app_with_litestars(store: RedisStore, requests: int) -> Litestar:
    config = RateLimitConfig(rate_limit=("minute", requests), store="limits")
    return Litestar(
        [handler],
        middleware=[config.middleware],
        stores={"limits": store},
        exception_handlers={Exception: render_error},
        openapi_config=None,
    )


def asks(app: Litestar) -> Asks:
    """A function that makes one request of the client with that number, and returns the status."""
    called = cast(Any, app)

    async def ask(client: int) -> int:
        status = 0

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]

        scope = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"test")],
            "client": (f"198.18.{client >> 8}.{client & 255}", 1),
        }
        await called(scope, receive, send)
        return status

    return ask


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def round_of(ask: Asks, redis: Redis, server: psutil.Process) -> tuple[float, float]:
    """Requests per second of our CPU alone, and of ours with Redis's."""
    await redis.flushdb()
    numbers = iter(range(REQUESTS))

    async def one_of_many() -> None:
        for number in numbers:
            assert await ask(number % CLIENTS) == 200

    before, redis_before = own_cpu(), sum(server.cpu_times()[:2])
    await asyncio.gather(*(one_of_many() for _ in range(CONCURRENCY)))
    mine, theirs = own_cpu() - before, sum(server.cpu_times()[:2]) - redis_before
    return REQUESTS / mine, REQUESTS / (mine + theirs)


async def limits_at(ask: Asks, requests: int) -> bool:
    statuses = [await ask(1) for _ in range(requests + 1)]
    return statuses == [200] * requests + [429]


async def measure(redis_url: str) -> list[dict[str, Any]]:
    """The figures. The database behind the address is emptied again and again.

    Raises:
        AssertionError: one of the two does not limit.
    """
    redis = Redis.from_url(redis_url)
    store = RedisStore(redis, handle_client_shutdown=False)
    server = psutil.Process((await redis.info("server"))["process_id"])
    few, few_limiter = app_with_ours(redis_url, 5)
    assert await limits_at(asks(few), 5)
    await few_limiter.aclose()
    assert await limits_at(asks(app_with_litestars(store, 5)), 5)
    ours_app, limiter = app_with_ours(redis_url, PER_MINUTE)
    ours, litestars = asks(ours_app), asks(app_with_litestars(store, PER_MINUTE))
    for ask in (ours, litestars):
        await round_of(ask, redis, server)
    rounds = [
        (await round_of(ours, redis, server), await round_of(litestars, redis, server)) for _ in range(ROUNDS)
    ]
    await limiter.aclose()
    await redis.aclose()
    middle = statistics.median
    return [
        figure("limiter: requests per CPU second, ours", middle(a[0] for a, _ in rounds), "1/s", ROUNDS),
        figure(
            "limiter: requests per CPU second, Litestar's", middle(b[0] for _, b in rounds), "1/s", ROUNDS
        ),
        figure("limiter: ratio, without Redis's CPU", middle(a[0] / b[0] for a, b in rounds), "x", ROUNDS),
        figure("limiter: ratio, with Redis's CPU", middle(a[1] / b[1] for a, b in rounds), "x", ROUNDS),
    ]
