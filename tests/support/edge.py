"""The application under a test, spoken to over ASGI on the test's own loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from litestar import Litestar

from server.auth.tokens import Tokens
from tests.support.world import ALL_SCOPES, TestTenant


@asynccontextmanager
async def opened(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running application. An exception in a handler is an answer here too, as it is on the wire."""
    started, stop = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        async with app.lifespan():
            started.set()
            await stop.wait()

    # A task of its own: Litestar's lifespan must end in the task in which it began, and a fixture's two halves do not.
    task = asyncio.create_task(run(), name="lifespan")
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({task, waiting}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        if not started.is_set():
            task.cancel()
            await task
            raise AssertionError("the application did not start")
        called: Any = app  # httpx and Litestar spell the type of an ASGI application differently
        transport = httpx.ASGITransport(called, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=not started.is_set())


def signed_in(app: Litestar, tenant: TestTenant, scopes: tuple[str, ...] = ALL_SCOPES) -> dict[str, str]:
    """The header of a member of the tenant's staff."""
    tokens: Tokens = app.state.tokens
    return {"authorization": f"Bearer {tokens.issue(tenant.info.id, tenant.staff_id, scopes)}"}
