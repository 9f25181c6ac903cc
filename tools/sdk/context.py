"""What a tool knows about the call: for whom, in which conversation, at what time. None of it comes from the
model.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from storage.sql import Session
from storage.tenancy import Database, TenantContext
from storage.vectors.embedder import Embedder
from storage.vectors.index import VectorIndex


@dataclass(frozen=True)
class Resources:
    """Long-lived things of the process that services are built from."""

    database: Database
    embedder: Embedder
    vectors: VectorIndex


class SessionSource(Protocol):
    """Opens a transaction of the call's tenant."""

    def __call__(self) -> AbstractAsyncContextManager[Session]: ...


@dataclass(frozen=True)
class ToolContext:
    """Handed to each tool as its first argument.

    Attributes:
        now: the turn's time, UTC; the same in a re-run.
        step: names this call for ever (``<turn>:<ordinal>``): the idempotency key for effects outside the
            database.
        labels: how many passages earlier calls of this turn have numbered.
        session: opens a transaction. In a tool that writes it is the one in which the journal row commits
            too.
    """

    tenant: TenantContext
    thread_id: UUID
    turn_id: UUID
    now: datetime
    step: str
    labels: int
    language: str
    resources: Resources
    session: SessionSource


@asynccontextmanager
async def shared(session: Session) -> AsyncIterator[Session]:
    """An open transaction in the form of a session source; whoever opened it commits it."""
    yield session
