"""The application under a test, spoken to over ASGI on the test's own loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import psycopg
from litestar import Litestar

from storage.ids import new_id
from storage.roles import libpq_url
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
    """The header of a person of the tenant whose role has just these scopes, who signed in with a second factor."""
    return header_of(app, someone(app, tenant, scopes))


@dataclass(frozen=True)
class Someone:
    """A person with a role, and an open session of theirs."""

    account_id: UUID
    member_id: UUID
    role_id: UUID
    session_id: UUID
    tenant_id: UUID
    email: str


def someone(
    app: Litestar,
    tenant: TestTenant,
    scopes: tuple[str, ...] = ALL_SCOPES,
    *,
    role: str | None = None,
    amr: tuple[str, ...] = ("pwd", "otp"),
) -> Someone:
    """Such a person, written into the tables by the role that the product itself uses for it.

    Args:
        role: key of an existing role, instead of one with just these scopes.
        amr: how they signed in; with one of the second factors they count as having proved just now that it is them.
    """
    ids = [new_id() for _ in range(4)]
    account, member, role_id, session = ids
    email = f"{account.hex[-12:]}@{tenant.info.slug}.example"
    url = libpq_url(app.state.parts.storage.role_urls().identity)
    with psycopg.connect(url) as connection:
        connection.execute(
            "insert into accounts (id, email, name, email_verified_at) values (%s, %s, 'Someone', now())",
            (account, email),
        )
        if role is None:
            connection.execute(
                "insert into roles (tenant_id, id, key, name, permissions) values (%s, %s, %s, 'Test', %s)",
                (tenant.info.id, role_id, f"test-{role_id.hex}", list(scopes)),
            )
        else:
            found = connection.execute(
                "select id from roles where tenant_id = %s and key = %s", (tenant.info.id, role)
            ).fetchone()
            assert found is not None
            role_id = found[0]
        connection.execute(
            """
            insert into members (tenant_id, id, account_id, role_id, email, name) values (%s, %s, %s, %s, %s, 'Someone')
            """,
            (tenant.info.id, member, account, role_id, email),
        )
        connection.execute(
            """
            insert into sessions (id, account_id, tenant_id, kind, security_version, amr, expires_at, device, place)
            values (%s, %s, %s, 'program', 1, %s, now() + interval '1 hour', 'test', 'unknown')
            """,
            (session, account, tenant.info.id, list(amr)),
        )
    return Someone(account, member, role_id, session, tenant.info.id, email)


def header_of(app: Litestar, person: Someone) -> dict[str, str]:
    """The Authorization header of their session."""
    tokens = app.state.identity.tokens
    token = tokens.issue(
        account_id=person.account_id,
        tenant_id=person.tenant_id,
        session_id=person.session_id,
        security_version=1,
        amr=["pwd", "otp"],
        auth_time=datetime.now(UTC),
    )
    return {"authorization": f"Bearer {token}"}
