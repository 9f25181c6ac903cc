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
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.crypto.cipher import Cipher
from storage.crypto.keyring import Keyring
from storage.engine import make_engine
from storage.settings import StorageSettings
from storage.sql import Session, text

log = structlog.get_logger(__name__)

PLATFORM_TENANT = UUID(int=0)
"""The platform itself as a tenant: its operators are its members, and what is of no business is sealed under its key."""


@dataclass(frozen=True)
class TenantContext:
    """On whose behalf something is done. Built at the edge (token, channel key, job's row), never by a model.

    Attributes:
        tenant_id: the business.
        actor: who acts, for the audit log: ``user:<account>``, ``key:<service account>``, ``contact:<thread>``,
            ``agent:<name>``, ``job:<name>``, ``operator:<account>`` inside somebody else's tenant.
        request_id: ``req_…`` of the HTTP request or job that started it.
        scopes: what the actor may do, such as ``crm:read``.
        reason: why, where somebody had to say so (an impersonation, a header of the request); it goes into the audit log.
    """

    tenant_id: UUID
    actor: str
    request_id: str | None = None
    scopes: frozenset[str] = frozenset()
    reason: str | None = None

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
    """The pools of one process, and its keys. Open at start, ``aclose`` at the end.

    Args:
        settings: where the database is.
        keyring: unwraps the data keys of tenants and people; None in a process that looks at nobody's data.
        process: shown by the database beside each connection.
    """

    def __init__(
        self, settings: StorageSettings, keyring: Keyring | None, process: str = "secretary"
    ) -> None:
        urls = settings.role_urls()
        self.keyring = keyring
        self._app = make_engine(urls.app, settings, f"{process}:app")
        self._platform = make_engine(urls.platform, settings, f"{process}:platform")
        self._identity = make_engine(urls.identity, settings, f"{process}:identity")

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
            yield Session(connection, self._cipher(context.tenant_id, connection))

    @asynccontextmanager
    async def identity_session(self, tenant_id: UUID = PLATFORM_TENANT) -> AsyncIterator[Session]:
        """A transaction of the role that signs people and programs in: accounts, sessions, memberships, keys; nothing that
        a customer wrote.

        Args:
            tenant_id: whose keys and audit log; the platform's where no tenant is concerned.
        """
        async with self._identity.begin() as connection:
            await connection.execute(_PIN, {"tenant": str(tenant_id), "durability": "on"})
            yield Session(connection, self._cipher(tenant_id, connection))

    @asynccontextmanager
    async def platform_session(self, reason: str) -> AsyncIterator[Session]:
        """A transaction across tenants. For finding out whose work it is, and for administration; never for
        content.

        Args:
            reason: why row-level security may be passed here; it is logged.
        """
        log.debug("platform_session", reason=reason)
        async with self._platform.begin() as connection:
            yield Session(connection)

    def _cipher(self, tenant_id: UUID, connection: AsyncConnection) -> Cipher | None:
        return None if self.keyring is None else Cipher(self.keyring, tenant_id, connection)

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
        await self._identity.dispose()


_REPIN = text("select set_config('app.tenant_id', :tenant, true)")
_PINNED = text("select current_setting('app.tenant_id', true)")


@asynccontextmanager
async def pinned(session: Session, tenant_id: UUID) -> AsyncIterator[None]:
    """For the length of a block an identity session writes into another tenant's audit log. Its cipher stays whose it was."""
    before = await session.scalar(_PINNED)
    await session.execute(_REPIN, {"tenant": str(tenant_id)})
    yield
    # Not in a finally: where the block failed the transaction is gone, and the setting with it.
    await session.execute(_REPIN, {"tenant": before})


def is_connection_loss(error: BaseException) -> bool:
    """True where the server went away or restarted: the same work may succeed in a moment and has not failed."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    # psycopg's own come from the checkpoints, which do not go through SQLAlchemy.
    return isinstance(error, OperationalError | PoolTimeout | ConnectionError | psycopg.OperationalError)


def rowcount(result: Any) -> int:
    """Rows touched by a statement that returns none (the attribute is missing from SQLAlchemy's async types)."""
    return int(result.rowcount)
