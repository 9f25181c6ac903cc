"""A small application behind the whole protection, with a guard that believes a header."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from server.errors import render_error
from server.protection.edge import Protection
from server.protection.idempotency import IdempotencyStore
from server.protection.settings import ProtectionSettings
from storage.errors import Unauthenticated
from storage.limits import RateLimiter
from storage.tenancy import TenantContext
from tests.support.edge import opened

ACME, GLOBEX = uuid4(), uuid4()
DEAD_REDIS = "redis://127.0.0.1:1"


class Book:
    """Origins by tenant."""

    def __init__(self, origins: Mapping[UUID, set[str]]) -> None:
        self.origins = origins
        self.questions: list[str] = []

    async def known(self, origin: str) -> bool:
        self.questions.append(origin)
        return any(origin in listed for listed in self.origins.values())

    async def allowed(self, tenant_id: UUID, origin: str) -> bool:
        self.questions.append(origin)
        return origin in self.origins.get(tenant_id, set())


BOOK = {ACME: {"https://app.acme.example"}, GLOBEX: {"https://globex.example:8443"}}


def caller(tenant: UUID = ACME, user: str = "ann") -> dict[str, str]:
    return {"x-caller": f"{tenant}/{user}"}


@asynccontextmanager
async def protected(
    *handlers: Any,
    redis_url: str = DEAD_REDIS,
    book: Book | None = None,
    answers: IdempotencyStore | None = None,
    **settings: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application of these handlers. Without a Redis the open classes of limits let everything pass."""
    protection = Protection(
        ProtectionSettings(**settings), RateLimiter(redis_url), book or Book(BOOK), answers
    )
    app = make_app(protection, *handlers)
    try:
        async with opened(app) as client:
            yield client
    finally:
        await protection.aclose()


def make_app(protection: Protection, *handlers: Any) -> Litestar:
    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        if handler.opt.get("public"):
            return
        said = connection.headers.get("x-caller") or connection.cookies.get("caller")
        if said is None:
            raise Unauthenticated("Who are you?")
        tenant, _, user = said.partition("/")
        context = TenantContext(UUID(tenant), f"user:{user}")
        connection.scope["state"]["context"] = context
        by_cookie = "x-caller" not in connection.headers
        await protection.check_caller(connection, context, user=user, by_cookie=by_cookie)

    return protection.install(
        Litestar(
            list(handlers),
            guards=[guard],
            middleware=protection.middleware,
            before_request=protection.before_request,
            exception_handlers={Exception: render_error},
            request_max_body_size=None,
            openapi_config=None,
        )
    )


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an answer in the envelope's shape."""
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "details", "request_id"}
    assert answer.headers["content-type"].startswith("application/json")
    return answer.status_code, error["code"]
