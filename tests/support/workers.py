"""Real worker processes over a database of their own, with a scripted model on the wire."""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from sqlalchemy import text

from server.deps import Parts, build_parts
from server.settings import ServerSettings
from storage.repositories import invariants
from tests.sandbox.openai import OpenAISandbox
from tests.sandbox.server import serve
from tests.support.servers import SECRET_KEY, TEMPLATE, Addresses, settings_for
from tests.support.world import TestTenant, make_tenant

REDIS_DATABASE = 7  # wake-ups of these workers are not for the other tests' eyes


@dataclass
class Workplace:
    """Where workers work: addresses in ``env``, the same parts here, a tenant, a folder for logs."""

    env: dict[str, str]
    parts: Parts
    tenant: TestTenant
    sandbox: OpenAISandbox
    folder: Path

    async def rows(self, sql: str, **values: Any) -> list[Any]:
        """What a statement shows the tenant."""
        async with self.parts.database.tenant_session(self.tenant.context) as session:
            return list((await session.execute(text(sql), values)).all())

    async def broken(self) -> dict[str, Any]:
        """Violated invariants of the whole database, by name."""
        async with self.parts.database.platform_session("test: invariants are about all tenants") as session:
            found = await invariants.violations(session)
        return {name: rows for name, rows in found.items() if rows}

    async def settled(self, thread_id: object) -> bool:
        """Nothing of a thread is open, unsent or leased."""
        (row,) = await self.rows(
            """
            select not exists (select from inbox_messages where thread_id = t.id and state = 'pending')
               and not exists (select from outbox where thread_id = t.id and state = 'pending')
               and (t.lease_until is null or t.lease_until < clock_timestamp()) from threads t where t.id = :thread
            """,
            thread=thread_id,
        )
        return bool(row[0])


@asynccontextmanager
async def workplace(addresses: Addresses, **env: str) -> AsyncIterator[Workplace]:
    """Make one; ``env`` are further settings of the workers."""
    name = f"work_{uuid4().hex[:12]}"
    admin = addresses.database_url("postgres")
    redis_url = f"{addresses.redis_url}/{REDIS_DATABASE}"
    sandbox = OpenAISandbox()
    with (
        psycopg.connect(admin, autocommit=True) as connection,
        serve(sandbox) as base_url,
        tempfile.TemporaryDirectory(prefix="workers-") as folder,
    ):
        connection.execute(f"create database {name} template {TEMPLATE}".encode())
        storage = settings_for(addresses, name, redis_url=redis_url)
        parts = build_parts("test", ServerSettings(), storage)
        try:
            settings = {
                "DATABASE_URL": addresses.database_url(name),
                "SECRET_KEY": SECRET_KEY,
                "REDIS_URL": redis_url,
                "CHROMA_URL": addresses.chroma_url,
                "SECRETARY_DATA": str(addresses.data_dir),
                "DATABASE_POOL_SIZE": "5",
                "MODEL_CACHE_DIR": os.environ["MODEL_CACHE_DIR"],
                "OPENAI_BASE_URL": f"{base_url}/v1",
                "LEASE_SECONDS": "1",
                "SWEEP_SECONDS": "0.3",
                **env,
            }
            yield Workplace(settings, parts, await make_tenant(parts, "acme"), sandbox, Path(folder))
        finally:
            await parts.aclose()
            connection.execute(f"drop database {name} with (force)".encode())


async def until(
    condition: Callable[[], Awaitable[object]] | Callable[[], object], what: str, seconds: float = 20.0
) -> None:
    """Wait for a condition.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if await result if isinstance(result, Awaitable) else result:
            return
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        await asyncio.sleep(0.02)
