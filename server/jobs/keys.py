"""Replacing keys while everything runs. All state is in the rows, so whatever was killed is simply run again.

Master key: each tenant's two keys are wrapped anew; nothing that is sealed changes. Tenant key: a new one is made, then
subject keys, columns and files move to it in batches, while other processes go on sealing under the old one until their
keyring has forgotten it. Only after ``GRACE``, and when nothing refers to it any more, is the old key given up.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from storage import registry
from storage.crypto.cipher import LocalSealer, Subject
from storage.crypto.envelope import DataKey, wrap
from storage.crypto.keyring import Keyring, Owner
from storage.crypto.masters import context_of
from storage.errors import UpstreamUnavailable
from storage.files import FileStore
from storage.registry import SubjectKind
from storage.repositories import key_rotation as rotation
from storage.repositories import keys
from storage.repositories.key_rotation import Place
from storage.repositories.keys import KeyRow
from storage.sql import Session
from storage.tenancy import PLATFORM_TENANT, Database, TenantContext

BATCH = 200
GRACE = timedelta(hours=1)
"""How long a replaced key is kept at least: twice the longest life of an entry in a keyring (CryptoSettings)."""

_AT_ONCE = 8  # calls to a key service
Progress = Callable[[int, int], None]
SealedColumns = Callable[[SubjectKind | None], list[tuple[str, str]]]


@dataclass(frozen=True)
class TenantRotation:
    """How far the rotation of a tenant's key has come.

    Attributes:
        moved: subject keys, values and files that were put under the new key in this run.
        given_up: old keys that exist no more.
        kept: old keys that are still there: their time of grace is not over, or something refers to them.
    """

    moved: int
    given_up: int
    kept: int


class KeyRotation:
    """Both rotations. ``progress`` is called with (done, total) after each batch.

    Args:
        sealed_columns: the registry: ``(table, column)`` by kind of subject, and of all for None.
        files: the file store, whose files may lie under a tenant's key.
        grace: see ``GRACE``.
    """

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        files: FileStore,
        *,
        sealed_columns: SealedColumns = registry.sealed_columns,
        grace: timedelta = GRACE,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._files = files
        self._sealed_columns = sealed_columns
        self._grace = grace

    async def rotate_master(self, progress: Progress) -> int:
        """Wrap all keys of tenants under the current master key; returns how many were wrapped anew.

        Raises:
            MasterKeyMissing, UpstreamUnavailable: what was done so far stays; run it again.
        """
        current = await self._keyring.masters.current_id()
        async with self._database.platform_session("rotate-master: which tenants it is about") as session:
            total = await rotation.count_under_other_masters(session, current)
        done, after = 0, (UUID(int=0), UUID(int=0))
        progress(0, total)
        while True:
            async with self._database.platform_session("rotate-master: which tenants it is about") as session:
                rows = await rotation.under_other_masters(session, current, after, BATCH)
            if not rows:
                return done
            gate = asyncio.Semaphore(_AT_ONCE)
            # No transaction is open while a key service thinks.
            fresh = await asyncio.gather(*(self._wrap_anew(row, gate) for row in rows))
            for row, (master_id, wrapped) in zip(rows, fresh, strict=True):
                context = TenantContext(row.tenant_id, actor="job:rotate-keys")
                async with self._database.tenant_session(context) as session:
                    done += await rotation.rewrap(session, row, wrapped, master_id)
            after = (rows[-1].tenant_id, rows[-1].id)
            progress(done, max(done, total))

    async def _wrap_anew(self, row: KeyRow, gate: asyncio.Semaphore) -> tuple[str, bytes]:
        async with gate:
            key = await self._keyring.unwrap_by_master(row)
            return await self._keyring.masters.wrap(key.secret, context_of(row))

    async def rotate_tenant(self, tenant_id: UUID, progress: Progress) -> TenantRotation:
        """Give a tenant a new key, or go on with a rotation that has not come to its end.

        Raises:
            MasterKeyMissing, Tampered, UpstreamUnavailable: what was done so far stays; run it again.
        """
        context = TenantContext(tenant_id, actor="job:rotate-keys")
        async with self._database.tenant_session(context) as session:
            unfinished = await rotation.retiring(session, tenant_id)
        if not unfinished:
            await self._begin(context)
        return await self.finish(tenant_id, progress)

    async def _begin(self, context: TenantContext) -> None:
        owner = Owner(context.tenant_id, "tenant", context.tenant_id)
        fresh, _ = await self._keyring.new_key(owner, None)
        async with self._database.tenant_session(context) as session:
            # The lock lets one of two rotations that begin together see the other's key.
            old = await rotation.lock_active(session, owner.tenant_id)
            if old is not None and not await rotation.retiring(session, owner.tenant_id):
                await rotation.retire(session, owner.tenant_id, old)
                await keys.add(session, fresh)
        if old is not None:
            self._keyring.forget([old])

    async def finish(self, tenant_id: UUID, progress: Progress) -> TenantRotation:
        """Move what is still under a tenant's old keys, and give up those that nobody uses."""
        context = TenantContext(tenant_id, actor="job:rotate-keys")
        async with self._database.tenant_session(context) as session:
            old_ids = await rotation.retiring(session, tenant_id)
        moved = given_up = 0
        for old_id in old_ids:
            move = _Move(
                self._database,
                self._keyring,
                self._files,
                self._movable(tenant_id),
                context,
                old_id,
                progress,
            )
            moved += await move.run()
            given_up += await self._give_up(context, old_id)
        return TenantRotation(moved, given_up, len(old_ids) - given_up)

    async def finish_all(self) -> int:
        """What a worker does once an hour: end the rotations whose time of grace is over. Returns keys given up."""
        async with self._database.platform_session("rotations to be ended: whose") as session:
            tenants = await rotation.tenants_retiring(session, self._grace)
        return sum(
            [(await self.finish(tenant_id, lambda _done, _total: None)).given_up for tenant_id in tenants]
        )

    @property
    def _accounts(self) -> list[tuple[str, str]]:
        return self._sealed_columns("account")

    def _movable(self, tenant_id: UUID) -> list[Place]:
        places = [Place(*column) for column in self._sealed_columns("tenant")]
        if tenant_id == PLATFORM_TENANT:
            places += [Place(*column, owned=False) for column in self._accounts]
        return places

    async def _give_up(self, context: TenantContext, old_id: UUID) -> bool:
        if await self._files.sealed_under(context, old_id):
            return False
        everywhere = [Place(*column) for column in self._sealed_columns(None) if column not in self._accounts]
        if context.tenant_id == PLATFORM_TENANT:
            async with self._database.identity_session() as session:
                for column in self._accounts:
                    if await rotation.any_sealed(
                        session, context.tenant_id, Place(*column, owned=False), old_id
                    ):
                        return False
        async with self._database.tenant_session(context) as session:
            # The key's row is locked first: from here on the grace is over, so nobody has the key to seal with it.
            if not await rotation.lock_expired(session, context.tenant_id, old_id, self._grace):
                return False
            if await rotation.count_wrapped_by(session, context.tenant_id, old_id):
                return False
            # Also columns of other subjects, where nothing should be: a key that is wanted is never lost.
            for place in everywhere:
                if await rotation.any_sealed(session, context.tenant_id, place, old_id):
                    return False
            await rotation.give_up(session, context.tenant_id, old_id)
        self._keyring.forget([old_id])
        return True


@dataclass
class _Move:
    """One old key's things on their way to the new one."""

    database: Database
    keyring: Keyring
    files: FileStore
    places: Sequence[Place]
    context: TenantContext
    old_id: UUID
    progress: Progress
    done: int = 0
    total: int = 0

    async def run(self) -> int:
        tenant_id = self.context.tenant_id
        in_files = await self.files.sealed_under(self.context, self.old_id)
        # Where another process began the rotation, this one's keyring may still take the old key for the active one.
        self.keyring.forget([self.old_id])
        async with self.database.tenant_session(self.context) as session:
            self.total = len(in_files) + await rotation.count_wrapped_by(session, tenant_id, self.old_id)
            new = await session.cipher.local(Subject.tenant())
            old = await session.cipher.local_of(self.old_id)
        if (
            old is None or new.key.id == self.old_id
        ):  # destroyed, or put back by a task that had read the row before
            raise UpstreamUnavailable("The tenant's key changed at this moment. Run the rotation again.")
        for place in self.places:
            async with self._session(place) as session:
                self.total += await rotation.count_sealed(session, tenant_id, place, self.old_id)
        self.progress(0, self.total)
        await self._subject_keys(old.key, new.key)
        for place in self.places:
            await self._column(place, old, new)
        for file_id in in_files:
            await self.files.reseal(self.context, old, new, file_id)
            self._moved(1)
        return self.done

    def _moved(self, count: int) -> None:
        self.done += count
        self.progress(self.done, max(self.done, self.total))

    async def _subject_keys(self, old: DataKey, new: DataKey) -> None:
        while True:
            async with self.database.tenant_session(self.context) as session:
                rows = await rotation.wrapped_by(session, self.context.tenant_id, self.old_id, BATCH)
                for row in rows:
                    key = self.keyring.unwrap_by_parent(row, old)
                    await rotation.rewrap(
                        session, row, wrap(new, key, row.tenant_id, row.kind, row.subject_id), str(new.id)
                    )
            if not rows:
                return
            self._moved(len(rows))

    def _session(self, place: Place) -> AbstractAsyncContextManager[Session]:
        if place.owned:
            return self.database.tenant_session(self.context)
        return self.database.identity_session()

    async def _column(self, place: Place, old: LocalSealer, new: LocalSealer) -> None:
        tenant_id, after = self.context.tenant_id, UUID(int=0)
        while True:
            async with self._session(place) as session:
                rows = await rotation.sealed(session, tenant_id, place, self.old_id, after, BATCH)
                fresh = [
                    (row_id, new.seal(place.name, row_id, old.open(place.name, row_id, blob)))
                    for row_id, blob in rows
                ]
                await rotation.write_sealed(session, tenant_id, place, fresh)
            if not rows:
                return
            after = rows[-1][0]
            self._moved(len(rows))
