"""What repositories seal and open with: a tenant's keys over one open transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from storage.crypto import envelope
from storage.crypto.blind import blind_index
from storage.crypto.envelope import DataKey, Tampered, aad_of, key_id_of
from storage.crypto.keyring import MASTER_WRAPPED, Keyring, Owner
from storage.errors import ValidationFailed
from storage.repositories import keys
from storage.repositories.keys import KeyRow
from storage.sql import Session

Kind = Literal["tenant", "index", "thread", "contact"]
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose key seals. ``id`` is None where it is the tenant's own."""

    kind: Kind
    id: UUID | None = None

    @classmethod
    def tenant(cls) -> "Subject":
        """The business itself: what belongs to no customer."""
        return _TENANT

    @classmethod
    def index(cls) -> "Subject":
        """The key of the blind indexes; named only where a whole tenant is destroyed, together with the tenant."""
        return _INDEX

    @classmethod
    def thread(cls, thread_id: UUID) -> "Subject":
        """A visitor's conversation."""
        return cls("thread", thread_id)

    @classmethod
    def contact(cls, contact_id: UUID) -> "Subject":
        """A customer who is known."""
        return cls("contact", contact_id)


_TENANT = Subject("tenant")
_INDEX = Subject("index")


class LocalSealer:
    """One key in hand, for code that cannot wait: LangGraph's serializer, a file's stream. Made inside a transaction,
    it works after it. Keep it for a turn or a file and no longer; and where the transaction was rolled back, throw it
    away.
    """

    __slots__ = ("_tenant_id", "key")

    def __init__(self, tenant_id: UUID, key: DataKey) -> None:
        self._tenant_id = tenant_id
        self.key = key

    def seal(self, column: str, row_id: UUID, value: str | bytes) -> bytes:
        plain = value.encode() if isinstance(value, str) else value
        return envelope.seal(self.key, aad_of(self._tenant_id, column, row_id), plain)

    def open(self, column: str, row_id: UUID, blob: bytes) -> bytes:
        """Decrypt.

        Raises:
            Tampered: also where it was sealed under another key of the subject, which this object does not have.
        """
        return _open(self.key, self._tenant_id, column, row_id, blob)


class Cipher:
    """Seals and opens on behalf of one tenant, in one transaction.

    A key in the keyring costs no database access. A key that this transaction makes is kept here and not in the
    keyring, because the transaction may be rolled back; the next one reads it. For the same reason a savepoint needs a
    Cipher of its own.

    Args:
        keyring: of the process.
        tenant_id: whose keys, and part of what each value is bound to.
        connection: an open transaction that sees the tenant's rows.
    """

    __slots__ = ("_fresh", "_fresh_active", "_keyring", "_session", "_tenant_id")

    def __init__(self, keyring: Keyring, tenant_id: UUID, connection: AsyncConnection) -> None:
        self._keyring = keyring
        self._tenant_id = tenant_id
        self._session = Session(connection)
        self._fresh: dict[UUID, DataKey] = {}
        self._fresh_active: dict[Owner, DataKey] = {}

    async def seal(self, column: str, row_id: UUID, subject: Subject, value: str | bytes) -> bytes:
        """Encrypt a value for ``table.column`` of a row; makes the subject's key where it has none.

        Raises:
            ValidationFailed: a text with a NUL character.
            MasterKeyMissing, UpstreamUnavailable: the tenant's key cannot be opened now.
        """
        if isinstance(value, str) and "\x00" in value:
            # As PostgreSQL would refuse it where it still saw the text; nobody types it, and not every reader can show it.
            raise ValidationFailed("The request holds a value that cannot be stored: a NUL character.")
        key = self._at_hand(subject) or await self._active_key(subject)
        plain = value.encode() if isinstance(value, str) else value
        return envelope.seal(key, aad_of(self._tenant_id, column, row_id), plain)

    async def open(self, column: str, row_id: UUID, blob: bytes | None) -> str | None:
        """Decrypt a text; None where there is none or its key was destroyed: the person was erased.

        Raises:
            Tampered: the value was changed, or was sealed for another place.
        """
        plain = await self.open_bytes(column, row_id, blob)
        return None if plain is None else plain.decode()

    async def open_bytes(self, column: str, row_id: UUID, blob: bytes | None) -> bytes | None:
        """As ``open``, for bytes."""
        if blob is None:
            return None
        key_id = key_id_of(blob)
        key = self._known(key_id) or (await self._load([key_id]))[key_id]
        return None if key is None else _open(key, self._tenant_id, column, row_id, blob)

    async def open_many(self, column: str, rows: Sequence[tuple[UUID, bytes | None]]) -> list[str | None]:
        """Decrypt a column of many rows, in their order; one query for all keys that are not at hand (and one more
        where the tenant's own key is not).

        Raises:
            Tampered: as ``open``.
        """
        wanted = {key_id_of(blob) for _, blob in rows if blob is not None}
        found: dict[UUID, DataKey | None] = {key_id: self._known(key_id) for key_id in wanted}
        missing = [key_id for key_id, key in found.items() if key is None]
        if missing:
            found |= await self._load(missing)
        texts: list[str | None] = []
        for row_id, blob in rows:
            key = None if blob is None else found[key_id_of(blob)]
            if blob is None or key is None:
                texts.append(None)
            else:
                texts.append(_open(key, self._tenant_id, column, row_id, blob).decode())
        return texts

    async def blind(self, kind: str, value: str) -> bytes:
        """The blind index of a normalised value, 16 bytes; see ``blind_index``."""
        key = self._at_hand(_INDEX) or await self._active_key(_INDEX)
        return blind_index(key.secret, kind, value)

    async def local(self, subject: Subject) -> LocalSealer:
        """The subject's key, for synchronous use; made where there is none."""
        return LocalSealer(self._tenant_id, self._at_hand(subject) or await self._active_key(subject))

    async def local_of(self, key_id: UUID) -> LocalSealer | None:
        """The key of this id, for synchronous use; None where it was destroyed.

        Raises:
            Tampered: the tenant has no such key.
        """
        key = self._known(key_id) or (await self._load([key_id]))[key_id]
        return None if key is None else LocalSealer(self._tenant_id, key)

    async def destroy(self, subjects: Iterable[Subject]) -> list[UUID]:
        """Destroy the keys of subjects: what was sealed under them can be read by nobody, also out of a backup that
        has no key table. A subject that appears again gets a new key.

        Returns:
            ids of the destroyed keys: for ``append_tombstone`` before the commit, and for ``Keyring.forget`` here
            and in other processes after it.
        """
        gone: list[UUID] = []
        for subject in subjects:
            owner = self._owner(subject)
            gone += await keys.destroy_subject(self._session, *owner)
            self._fresh_active.pop(owner, None)
        for key_id in gone:
            self._fresh.pop(key_id, None)
        self._keyring.forget(gone)
        return gone

    def _owner(self, subject: Subject) -> Owner:
        return Owner(self._tenant_id, subject.kind, subject.id or self._tenant_id)

    def _at_hand(self, subject: Subject) -> DataKey | None:
        owner = self._owner(subject)
        return self._keyring.active(owner) or self._fresh_active.get(owner)

    def _known(self, key_id: UUID) -> DataKey | None:
        return self._keyring.get(self._tenant_id, key_id) or self._fresh.get(key_id)

    async def _active_key(self, subject: Subject) -> DataKey:
        owner = self._owner(subject)
        for _ in range(_ATTEMPTS):
            row = await keys.active(self._session, *owner)
            if row is None:
                parent = None if subject.kind in MASTER_WRAPPED else await self._parent_for_new()
                row, key = await self._keyring.new_key(owner, parent)
                if not await keys.add(self._session, row):
                    continue  # another process was quicker; its row is committed now
            else:
                opened = await self._open_row(row)
                if opened is None:
                    continue  # it was destroyed in between
                key = opened
            if row.uncommitted:
                self._fresh[key.id] = self._fresh_active[owner] = key
            return key
        raise Tampered("a data key")

    async def _parent_for_new(self) -> DataKey:
        return self._at_hand(_TENANT) or await self._active_key(_TENANT)

    async def _load(self, key_ids: Sequence[UUID]) -> dict[UUID, DataKey | None]:
        """Keys that are not at hand; None for those that were destroyed."""
        rows = {row.id: row for row in await keys.by_ids(self._session, self._tenant_id, key_ids)}
        if len(rows) < len(set(key_ids)):
            raise Tampered  # the tenant never had such a key
        found: dict[UUID, DataKey | None] = {}
        for key_id, row in rows.items():
            found[key_id] = key = await self._open_row(row)
            if key is not None and row.uncommitted:
                self._fresh[key_id] = key
        return found

    async def _open_row(self, row: KeyRow) -> DataKey | None:
        """The key in the clear; None where it, or the tenant's key above it, was destroyed."""
        for _ in range(_ATTEMPTS):
            if row.destroyed_at is not None:
                return None
            if row.kind in MASTER_WRAPPED:
                return await self._keyring.unwrap_by_master(row)
            parent_id = UUID(row.wrapped_by)
            parent = self._known(parent_id)
            if parent is not None:
                return self._keyring.unwrap_by_parent(row, parent)
            above, now = await self._rows_of(parent_id, row.id)
            if above.destroyed_at is not None:
                return None
            if now.wrapped_by == row.wrapped_by and now.destroyed_at is None:
                parent = await self._keyring.unwrap_by_master(above)
                return self._keyring.unwrap_by_parent(now, parent)
            row = now  # a rotation of the tenant's key came between
        raise Tampered("a data key")

    async def _rows_of(self, first: UUID, second: UUID) -> tuple[KeyRow, KeyRow]:
        rows = {row.id: row for row in await keys.by_ids(self._session, self._tenant_id, [first, second])}
        if len(rows) < 2:
            raise Tampered("a data key")
        return rows[first], rows[second]


def _open(key: DataKey, tenant_id: UUID, column: str, row_id: UUID, blob: bytes) -> bytes:
    try:
        return envelope.open_(key, aad_of(tenant_id, column, row_id), blob)
    except Tampered:
        raise Tampered(f"{column} of {row_id}") from None
