# ruff: noqa: S608  # tables and columns come from the column registry
"""Erasing a person, or a conversation whose time is over: in steps, each of which may be repeated after a crash.

``mark`` stops all work on the conversations, ``keys`` makes everything unreadable, the other steps remove what is unreadable
then, ``verify`` reads every registered column again. Keys go early: whatever happens after that, and whatever backup is restored
(its tombstones are replayed), nobody can read what was there.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from redis.asyncio import Redis

from storage.crypto.tombstones import append_tombstone
from storage.errors import Conflict
from storage.files import FileStore
from storage.privacy.stores import Checkpoints, Files, RedisKeys, Store, StoredAnswers
from storage.privacy.subjects import ERASED, PersonalTable, Scope, left_of, tables
from storage.redis import EventBus
from storage.sql import Session, text
from storage.tenancy import Database, TenantContext, rowcount

FORGET_CHANNEL = "secretary:destroyed-keys"
"""On the event bus: ``{"keys": [ids]}``; every process that has a keyring drops them."""

MARK, KEYS, ROWS, VERIFY = "mark", "keys", "rows", "verify"
STEPS = (MARK, KEYS, "files", "checkpoints", ROWS, "stored_answers", "redis", VERIFY)
# Tables whose rows the app's role cannot delete; a function does, where the conversation is marked.
_DELETED_BY = {"turn_steps": "select forget_turns(:threads)"}


class LegalHold(Conflict):
    """The contact's data has to be kept."""


@dataclass(frozen=True)
class Verification:
    """What the last look found: things that are still there, by column, store and kind of key. All zero, or it is not over."""

    left: dict[str, int]

    @property
    def clean(self) -> bool:
        return not any(self.left.values())


class Erasure:
    """The steps.

    Args:
        tombstones: the file of destroyed keys, outside the database.
    """

    def __init__(
        self,
        database: Database,
        files: FileStore,
        redis: Redis,
        bus: EventBus,
        tombstones: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._bus = bus
        self._tombstones = tombstones
        self._now = now
        stores: Sequence[Store] = (
            Files(database, files),
            Checkpoints(database),
            StoredAnswers(database),
            RedisKeys(redis),
        )
        self.stores: dict[str, Store] = {store.name: store for store in stores}

    async def mark(self, session: Session, scope: Scope) -> dict[str, int]:
        """End all work on the conversations, and let nobody find the contact any more.

        Messages nobody has answered stay with people (state ``human``), which leaves nothing open; replies that were not sent
        are given up. A worker that is at one of the threads loses its lease and writes nothing.

        Raises:
            LegalHold: the contact's data has to be kept; nothing was changed.
        """
        if scope.contact_id is not None:
            await self._mark_contact(session, scope.contact_id)
        threads = {"threads": list(scope.threads)}
        marked = await session.execute(
            text("""
            update threads set erased_at = coalesce(erased_at, clock_timestamp()), fence = null, lease_until = null,
                   needs_human_at = null where id = any(:threads)
            """),
            threads,
        )
        settled = await session.execute(
            text("""
            update inbox_messages set state = 'human', last_error = null
             where thread_id = any(:threads) and direction = 'in' and state in ('pending', 'dead')
            """),
            threads,
        )
        unsent = await session.execute(
            text("""
            update outbox set state = 'dead', last_error = 'erased', lease_token = null, lease_until = null
             where thread_id = any(:threads) and state = 'pending'
            """),
            threads,
        )
        return {
            "threads": rowcount(marked),
            "messages_settled": rowcount(settled),
            "replies_given_up": rowcount(unsent),
        }

    async def _mark_contact(self, session: Session, contact_id: UUID) -> None:
        row = (
            await session.execute(
                text("select legal_hold from contacts where id = :id for update"), {"id": contact_id}
            )
        ).one()
        if row.legal_hold is not None:
            raise LegalHold("This contact is under legal hold.")
        hashes = [
            f"{entry.column} = null"
            for table in tables()
            if table.name == "contacts"
            for entry in table.columns
            if not entry.personal.sealed and entry.personal.on_erasure == "null"
        ]
        # With the keyed hashes goes the way to find them: whoever writes again from the same address is somebody new.
        assignments = ", ".join(("erased_at = coalesce(erased_at, clock_timestamp())", *hashes))
        await session.execute(
            text(f"update contacts set {assignments} where id = :id"),
            {"id": contact_id},
        )
        await session.execute(
            text("""
            update privacy_requests set state = 'failed', last_error = 'erased', lease_until = null, finished_at = clock_timestamp()
             where contact_id = :id and kind = 'export' and state = 'pending'
            """),
            {"id": contact_id},
        )

    async def destroy_keys(self, session: Session, context: TenantContext, scope: Scope) -> list[UUID]:
        """Destroy the keys; their ids. Tell the others with ``forget`` after the commit."""
        gone = await session.cipher.destroy(scope.subjects)
        await asyncio.to_thread(append_tombstone, self._tombstones, context.tenant_id, gone, self._now())
        return gone

    async def forget(self, key_ids: Sequence[UUID]) -> None:
        """Drop destroyed keys from this process, and ask the others to. Those that do not hear it forget in some minutes."""
        if key_ids:
            if self._database.keyring is not None:
                self._database.keyring.forget(key_ids)
            await self._bus.publish(FORGET_CHANNEL, {"keys": [str(key_id) for key_id in key_ids]})

    async def forget_rows(self, session: Session, scope: Scope) -> dict[str, int]:
        """Do to each registered column what it says; rows by table."""
        return {table.name: await _forget(session, table, scope) for table in tables()}

    async def verify(self, context: TenantContext, scope: Scope) -> Verification:
        """Look at every registered column, store and key of the scope again."""
        async with self._database.tenant_session(context) as session:
            left = await left_of(session, scope)
            left["data_keys"] = await _keys_alive(session, scope)
        for store in self.stores.values():
            left[store.name] = await store.left(context, scope)
        return Verification(left)


async def _forget(session: Session, table: PersonalTable, scope: Scope) -> int:
    if table.name in _DELETED_BY:
        return int(await session.scalar(text(_DELETED_BY[table.name]), {"threads": list(scope.threads)}) or 0)
    if table.removed_whole:
        return rowcount(
            await session.execute(
                text(f"delete from {table.name} where {table.where}"),
                scope.parameters,
            )
        )
    changes: dict[str, tuple[str, str]] = {}
    for entry in table.columns:
        if entry.personal.on_erasure == "null":
            changes[entry.column] = ("null", f"{entry.column} is not null")
        elif entry.personal.on_erasure == "token":
            changes[entry.column] = (
                f"'{ERASED}' || gen_random_uuid()",
                f"not starts_with({entry.column}, '{ERASED}')",
            )
    if not changes:
        return 0
    assignments = ", ".join(f"{column} = {value}" for column, (value, _) in changes.items())
    holds = " or ".join(condition for _, condition in changes.values())
    return rowcount(
        await session.execute(
            text(f"update {table.name} set {assignments} where ({table.where}) and ({holds})"),
            scope.parameters,
        )
    )


async def _keys_alive(session: Session, scope: Scope) -> int:
    found: Any = await session.scalar(
        text("""
        select count(*) from data_keys where destroyed_at is null and (
          (subject_kind = 'contact' and subject_id = :contact) or (subject_kind = 'thread' and subject_id = any(:threads)))
        """),
        scope.parameters,
    )
    return int(found)
