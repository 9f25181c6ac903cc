"""The only door to a database session, and the object that says on whose behalf one is opened.

A tenant session pins ``app.tenant_id`` at the begin of each transaction, for that transaction only: nothing
is left on the pooled connection. Row-level security then shows the tenant's rows and no others; a session
without a tenant sees none.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import structlog
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage.engine import make_engine
from storage.settings import StorageSettings
from storage.sql import Session, text

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class TenantContext:
    """On whose behalf something is done. Built at the edge (token, channel key, job's row), never by a model.

    Attributes:
        tenant_id: the business.
        actor: who acts, for the audit log: ``user:<id>``, ``contact:<thread>``, ``agent:<name>``,
            ``job:<name>``.
        request_id: ``req_…`` of the HTTP request or job that started it.
        scopes: what the actor may do, such as ``crm:read``.
    """

    tenant_id: UUID
    actor: str
    request_id: str | None = None
    scopes: frozenset[str] = frozenset()

    def redis_key(self, *parts: object) -> str:
        """A key in Redis that no other tenant's code can build: ``t:<tenant>:<part>:…``."""
        return ":".join(("t", str(self.tenant_id), *map(str, parts)))

    def checkpoint_thread(self, thread_id: UUID) -> str:
        """The thread's name in LangGraph's tables; the policy there compares the part before the colon."""
        return f"{self.tenant_id}:{thread_id}"


_PIN = text(
    "select set_config('app.tenant_id', :tenant, true), set_config('synchronous_commit', :durability, true)"
)


class Database:
    """The pools of one process. Open at start, ``aclose`` at the end."""

    def __init__(self, settings: StorageSettings, process: str = "secretary") -> None:
        urls = settings.role_urls()
        self._app = make_engine(urls.app, settings, f"{process}:app")
        self._platform = make_engine(urls.platform, settings, f"{process}:platform")

    @asynccontextmanager
    async def tenant_session(self, context: TenantContext, *, durable: bool = True) -> AsyncIterator[Session]:
        """A transaction on behalf of one tenant; commits at the end, rolls back on any exception.

        Args:
            context: whose rows are visible.
            durable: False lets the commit return before the log is on disk. A later durable commit flushes
                everything before it, so such a row cannot be missing when one that was written because of it
                is there. Used for steps whose loss together with all that followed them is the same as never
                having begun.
        """
        async with self._app.begin() as connection:
            await connection.execute(
                _PIN, {"tenant": str(context.tenant_id), "durability": "on" if durable else "off"}
            )
            yield connection

    @asynccontextmanager
    async def platform_session(self, reason: str) -> AsyncIterator[Session]:
        """A transaction across tenants. For finding out whose work it is, and for administration; never for
        content.

        Args:
            reason: why row-level security may be passed here; it is logged.
        """
        log.debug("platform_session", reason=reason)
        async with self._platform.begin() as connection:
            yield connection

    async def ping(self) -> str:
        """The current migration of the database.

        Raises:
            Exception: whatever the driver says when the server is away or was never migrated.
        """
        async with self.platform_session("readiness") as session:
            return str(await session.scalar(text("select version_num from alembic_version limit 1")))

    async def aclose(self) -> None:
        await self._app.dispose()
        await self._platform.dispose()


def is_connection_loss(error: BaseException) -> bool:
    """True where the server went away or restarted: the same work may succeed in a moment and has not failed."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    # psycopg's own come from the checkpoints, which do not go through SQLAlchemy.
    return isinstance(error, OperationalError | PoolTimeout | ConnectionError | psycopg.OperationalError)


def rowcount(result: Any) -> int:
    """Rows touched by a statement that returns none (the attribute is missing from SQLAlchemy's async types)."""
    return int(result.rowcount)
