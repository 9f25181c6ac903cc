"""Whether this process lives, and whether it can do its work."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import msgspec
from litestar import Controller, Request, Response, get

from agents.supervisor.pii import COVERAGE
from server.deps import Parts


class Health(msgspec.Struct):
    """``status``: ready, degraded (answers, but something beside the database is away), or unavailable."""

    status: str
    checks: dict[str, str]
    personal_data: dict[str, str] = msgspec.field(default_factory=dict)


class HealthController(Controller):
    path = "/health"
    tags = ("Health",)

    @get("/live", opt={"public": True})
    async def live(self) -> Health:
        """This process answers. Asks nothing else."""
        return Health("live", {})

    @get("/ready", opt={"public": True})
    async def ready(self, request: Request[Any, Any, Any]) -> Response[Health]:
        """The database is there and migrated (else 503). Redis and Chroma away is ``degraded``: messages are
        answered all the same.

        ``personal_data`` says which kinds the supervisor finds without a configured model.
        """
        parts: Parts = request.app.state.parts
        names = ("database", "redis", "chroma")
        outcomes = await asyncio.gather(
            *map(_check, (parts.database.ping(), parts.bus.ping(), parts.resources.vectors.ping()))
        )
        checks = dict(zip(names, outcomes, strict=True))
        if checks["database"] != "ok":
            return Response(Health("unavailable", checks, dict(COVERAGE)), status_code=503)
        status = "ready" if all(outcome == "ok" for outcome in outcomes) else "degraded"
        return Response(Health(status, checks, dict(COVERAGE)))


async def _check(question: Awaitable[Any]) -> str:
    try:
        async with asyncio.timeout(3):
            await question
    except Exception as error:  # any failure at all means: not there
        return type(error).__name__
    return "ok"
