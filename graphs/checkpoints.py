"""LangGraph's checkpoints in PostgreSQL, under the tenant's policy.

A checkpoint is the thread's working memory for the next turn, written once at the end of a turn
(``durability="exit"``). It may be lost together with the turn that wrote it, never without: the turn's last
transaction, which is durable, comes after it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from langgraph.checkpoint.postgres import _ainternal
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.base import CipherProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from storage.crypto.cipher import LocalSealer
from storage.errors import LeaseLost
from storage.roles import libpq_url

Pool = AsyncConnectionPool[AsyncConnection[DictRow]]


def make_checkpoint_pool(url: str, size: int) -> Pool:
    """A pool as the saver wants it; opened by the caller. Idle connections are checked before use and
    renewed.
    """
    return AsyncConnectionPool(
        libpq_url(url),
        min_size=1,
        max_size=size,
        open=False,
        timeout=10,
        max_idle=300,
        max_lifetime=1800,
        check=AsyncConnectionPool.check_connection,
        kwargs={
            "autocommit": True,
            "prepare_threshold": 0,
            "row_factory": dict_row,
            "application_name": "secretary:checkpoints",
        },
    )


class _ThreadCipher(CipherProtocol):
    """Seals what a checkpoint holds under the thread's key: it dies with the person."""

    name = "v1"

    def __init__(self, sealer: LocalSealer, thread_id: UUID) -> None:
        self._sealer = sealer
        self._thread_id = thread_id

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return self.name, self._sealer.seal("checkpoint_blobs.blob", self._thread_id, plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        """Open a value.

        Raises:
            Tampered: changed, or another thread's.
        """
        return self._sealer.open("checkpoint_blobs.blob", self._thread_id, ciphertext)


class TenantSaver(AsyncPostgresSaver):
    """The checkpoints of one thread of a tenant. Cheap: one is made for each turn.

    Args:
        thread_id: whose they are.
        sealer: the thread's key.
        fence: of the turn at work; None for reading and for maintenance.

    It overrides a private method of the library, so tests hold the version to that contract.
    """

    def __init__(
        self,
        pool: Pool,
        tenant_id: UUID,
        thread_id: UUID,
        sealer: LocalSealer,
        fence: UUID | None = None,
    ) -> None:
        super().__init__(
            pool, serde=EncryptedSerializer(_ThreadCipher(sealer, thread_id), JsonPlusSerializer())
        )
        self._tenant_id = tenant_id
        self._lease = None if fence is None else (thread_id, fence)

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncIterator[AsyncCursor[Any]]:
        """One transaction, pinned to the tenant; statements travel together where the server allows it.

        The library asks for a pipeline where it writes. A write shows the fence like every other: a stale worker must not lay an
        old memory on top of a newer one.

        Raises:
            LeaseLost: somebody else works this thread now; nothing was written.
        """
        async with (
            self.lock,
            _ainternal.get_connection(self.conn) as connection,
            connection.pipeline(),
            connection.transaction(),
            connection.cursor(binary=True, row_factory=dict_row) as cursor,
        ):
            await cursor.execute(
                "select set_config('app.tenant_id', %s, true), set_config('synchronous_commit', 'off', true)",
                (str(self._tenant_id),),
            )
            if pipeline and self._lease is not None:
                await cursor.execute(
                    "select 1 from threads where id = %s and fence = %s for share", self._lease
                )
                if await cursor.fetchone() is None:
                    raise LeaseLost
            yield cursor
