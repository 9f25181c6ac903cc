"""Unwrapped keys of one process: a bounded cache, and the way from a stored row to a key in the clear."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID
from weakref import WeakValueDictionary

from storage.crypto.envelope import DataKey, Tampered, unwrap, wrap
from storage.crypto.masters import KeyContext, MasterKeys, context_of
from storage.repositories.keys import KeyRow

MASTER_WRAPPED = frozenset({"tenant", "index"})


class Owner(NamedTuple):
    """Whose key it is."""

    tenant_id: UUID
    kind: str
    subject_id: UUID


@dataclass(slots=True)
class _Entry:
    key: DataKey
    owner: Owner
    expires: float


class Keyring:
    """Keys that were unwrapped, by tenant and id; the least recently used go first. Not shared between event loops.

    An entry ends a fixed time after it was unwrapped, however often it is used: an erasure in another process takes
    effect here no later than that. Python cannot wipe memory, so a key that was dropped may stay in it for a while.

    Args:
        masters: unwrap tenants' keys.
        cache_seconds: life of an entry.
        size: entries.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        masters: MasterKeys,
        *,
        cache_seconds: float = 300.0,
        size: int = 20_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.masters = masters
        self.cache_seconds = cache_seconds
        self._size = size
        self._clock = clock
        self._entries: OrderedDict[tuple[UUID, UUID], _Entry] = OrderedDict()
        self._active: dict[Owner, UUID] = {}
        self._unwrapping: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    def get(self, tenant_id: UUID, key_id: UUID) -> DataKey | None:
        """The tenant's key of this id, where it is known."""
        place = (tenant_id, key_id)
        entry = self._entries.get(place)
        if entry is None:
            return None
        if entry.expires <= self._clock():
            self._drop(place)
            return None
        self._entries.move_to_end(place)
        return entry.key

    def active(self, owner: Owner) -> DataKey | None:
        """The key under which new values of an owner are sealed, where it is known."""
        key_id = self._active.get(owner)
        return None if key_id is None else self.get(owner.tenant_id, key_id)

    def remember(self, row: KeyRow, key: DataKey) -> None:
        """Keep a key whose row is committed. (One that is not could vanish, and what was sealed under it with it.)"""
        owner = Owner(row.tenant_id, row.kind, row.subject_id)
        place = (row.tenant_id, row.id)
        self._entries[place] = _Entry(key, owner, self._clock() + self.cache_seconds)
        self._entries.move_to_end(place)
        if row.retired_at is None:
            self._active[owner] = row.id
        elif self._active.get(owner) == row.id:
            del self._active[owner]
        while len(self._entries) > self._size:
            self._drop(next(iter(self._entries)))

    def forget(self, key_ids: Iterable[UUID]) -> None:
        """Drop keys that were destroyed or retired. To be called after the commit as well: until then another task
        may read the row as it was.
        """
        wanted = set(key_ids)
        for place in [place for place in self._entries if place[1] in wanted]:
            self._drop(place)

    def __len__(self) -> int:
        return len(self._entries)

    async def unwrap_by_master(self, row: KeyRow) -> DataKey:
        """Open a tenant's or index key. Tasks that want the same one at the same time ask the key service once.

        Raises:
            MasterKeyMissing, Tampered, UpstreamUnavailable: see ``MasterKeys.unwrap``.
        """
        if row.wrapped is None or row.wrapped_by is None:
            raise Tampered("a data key")
        lock = self._unwrapping.setdefault(row.id, asyncio.Lock())
        async with lock:
            known = self.get(row.tenant_id, row.id)
            if known is not None:
                return known
            key = DataKey(row.id, await self.masters.unwrap(row.wrapped_by, row.wrapped, context_of(row)))
            if not row.uncommitted:
                self.remember(row, key)
            return key

    def unwrap_by_parent(self, row: KeyRow, parent: DataKey) -> DataKey:
        """Open a subject's key.

        Raises:
            Tampered: it was changed, or is not this subject's.
        """
        if row.wrapped is None:
            raise Tampered("a data key")
        key = unwrap(parent, row.wrapped, row.tenant_id, row.kind, row.subject_id, row.id)
        if not row.uncommitted:
            self.remember(row, key)
        return key

    async def new_key(self, owner: Owner, parent: DataKey | None) -> tuple[KeyRow, DataKey]:
        """A fresh key and its row, not yet stored.

        Args:
            owner: whose it will be.
            parent: the tenant's key, or None for a key that the master key wraps.
        """
        key = DataKey.generate()
        if parent is None:
            context = KeyContext(owner.tenant_id, owner.kind, owner.subject_id, key.id)
            wrapped_by, wrapped = await self.masters.wrap(key.secret, context)
        else:
            wrapped_by, wrapped = str(parent.id), wrap(parent, key, *owner)
        row = KeyRow(
            owner.tenant_id,
            key.id,
            owner.kind,
            owner.subject_id,
            wrapped,
            wrapped_by,
            None,
            None,
            uncommitted=True,
        )
        return row, key

    def _drop(self, place: tuple[UUID, UUID]) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None and self._active.get(entry.owner) == place[1]:
            del self._active[entry.owner]
