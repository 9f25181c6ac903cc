"""SQL of key rotation: what is still under an old key, in batches, and the exchange."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from storage.crypto.envelope import HEADER_BYTES, VERSION
from storage.repositories.keys import KeyRow, row_of
from storage.sql import Session, text
from storage.tenancy import rowcount

_NAME = re.compile(r"[a-z_][a-z0-9_]*")


async def count_under_other_masters(session: Session, current: str) -> int:
    """Keys of tenants that another master key wraps; platform role."""
    return int(
        await session.scalar(
            text("""
            select count(*) from data_keys
             where subject_kind in ('tenant', 'index') and wrapped is not null and wrapped_by <> :current
            """),
            {"current": current},
        )
        or 0
    )


async def under_other_masters(
    session: Session, current: str, after: tuple[UUID, UUID], limit: int
) -> list[KeyRow]:
    """The next of them behind (tenant, key); platform role."""
    rows = await session.execute(
        text("""
        select tenant_id, id, subject_kind, subject_id, wrapped, wrapped_by, retired_at, destroyed_at from data_keys
         where subject_kind in ('tenant', 'index') and wrapped is not null and wrapped_by <> :current
           and (tenant_id, id) > (:tenant, :key) order by tenant_id, id limit :limit
        """),
        {"current": current, "tenant": after[0], "key": after[1], "limit": limit},
    )
    return [row_of(row) for row in rows]


async def rewrap(session: Session, row: KeyRow, wrapped: bytes, wrapped_by: str) -> int:
    """Exchange a key's wrapping; 0 where it was destroyed or wrapped anew by somebody else meanwhile."""
    return rowcount(
        await session.execute(
            text("""
            update data_keys set wrapped = :wrapped, wrapped_by = :by
             where tenant_id = :tenant and id = :id and wrapped = :old
            """),
            {
                "wrapped": wrapped,
                "by": wrapped_by,
                "tenant": row.tenant_id,
                "id": row.id,
                "old": row.wrapped,
            },
        )
    )


async def retiring(session: Session, tenant_id: UUID) -> list[UUID]:
    """Replaced keys of a tenant that still exist, oldest first."""
    return list(
        await session.scalars(
            text("""
            select id from data_keys where tenant_id = :tenant and subject_kind = 'tenant' and retired_at is not null
               and wrapped is not null order by retired_at, id
            """),
            {"tenant": tenant_id},
        )
    )


async def tenants_retiring(session: Session, grace: timedelta) -> list[UUID]:
    """Tenants with a replaced key whose time of grace is over; platform role."""
    return list(
        await session.scalars(
            text("""
            select distinct tenant_id from data_keys where subject_kind = 'tenant' and wrapped is not null
               and retired_at <= clock_timestamp() - cast(:grace as interval) order by tenant_id
            """),
            {"grace": grace},
        )
    )


async def lock_active(session: Session, tenant_id: UUID) -> UUID | None:
    """Lock the tenant's active key until the transaction's end."""
    found: UUID | None = await session.scalar(
        text("""
        select id from data_keys where tenant_id = :tenant and subject_kind = 'tenant' and subject_id = :tenant
           and retired_at is null and destroyed_at is null for update
        """),
        {"tenant": tenant_id},
    )
    return found


async def retire(session: Session, tenant_id: UUID, key_id: UUID) -> None:
    """From now on nothing new is sealed under it, apart from what caches still allow."""
    await session.execute(
        text("update data_keys set retired_at = clock_timestamp() where tenant_id = :tenant and id = :id"),
        {"tenant": tenant_id, "id": key_id},
    )


async def lock_expired(session: Session, tenant_id: UUID, key_id: UUID, grace: timedelta) -> bool:
    """Lock a replaced key whose time of grace is over; False where it is not."""
    found = await session.scalar(
        text("""
        select id from data_keys where tenant_id = :tenant and id = :id and wrapped is not null
           and retired_at <= clock_timestamp() - cast(:grace as interval) for update
        """),
        {"tenant": tenant_id, "id": key_id, "grace": grace},
    )
    return found is not None


async def give_up(session: Session, tenant_id: UUID, key_id: UUID) -> None:
    """Remove the key itself from its row."""
    await session.execute(
        text("update data_keys set wrapped = null where tenant_id = :tenant and id = :id"),
        {"tenant": tenant_id, "id": key_id},
    )


async def count_wrapped_by(session: Session, tenant_id: UUID, parent_id: UUID) -> int:
    """Keys of subjects that a tenant's key wraps."""
    return int(
        await session.scalar(
            text("""
            select count(*) from data_keys where tenant_id = :tenant and wrapped_by = :parent and wrapped is not null
            """),
            {"tenant": tenant_id, "parent": str(parent_id)},
        )
        or 0
    )


async def wrapped_by(session: Session, tenant_id: UUID, parent_id: UUID, limit: int) -> list[KeyRow]:
    """Some of them, locked: an erasure waits for the end of the transaction."""
    rows = await session.execute(
        text("""
        select tenant_id, id, subject_kind, subject_id, wrapped, wrapped_by, retired_at, destroyed_at, true as uncommitted
          from data_keys where tenant_id = :tenant and wrapped_by = :parent and wrapped is not null order by id limit :limit for update
        """),
        {"tenant": tenant_id, "parent": str(parent_id), "limit": limit},
    )
    return [row_of(row) for row in rows]


@dataclass(frozen=True)
class Place:
    """A sealed column.

    Attributes:
        owned: rows have a ``tenant_id``; else the table is the platform's (accounts, mails).
    """

    table: str
    column: str
    owned: bool = True

    def __post_init__(self) -> None:
        if not (_NAME.fullmatch(self.table) and _NAME.fullmatch(self.column)):
            raise ValueError(f"not a table and column: {self.table}.{self.column}")

    @property
    def name(self) -> str:
        """What its values are bound to."""
        return f"{self.table}.{self.column}"

    def values(self, tenant_id: UUID, key_id: UUID) -> dict[str, object]:
        """Parameters of ``under_key``."""
        header: dict[str, object] = {"header": VERSION + key_id.bytes}
        return {**header, "tenant": tenant_id} if self.owned else header

    @property
    def under_key(self) -> str:
        """SQL condition: the value is sealed under a key."""
        owned = "tenant_id = :tenant and " if self.owned else ""
        return f"{owned}substring({self.column} from 1 for {HEADER_BYTES}) = :header"


async def count_sealed(session: Session, tenant_id: UUID, place: Place, key_id: UUID) -> int:
    """Values of a column under a key."""
    statement = text(f"select count(*) from {place.table} where {place.under_key}")  # noqa: S608  # names of ours, checked
    return int(await session.scalar(statement, place.values(tenant_id, key_id)) or 0)


async def any_sealed(session: Session, tenant_id: UUID, place: Place, key_id: UUID) -> bool:
    """Whether a column has values under a key."""
    statement = text(f"select exists (select from {place.table} where {place.under_key})")  # noqa: S608  # as above
    return bool(await session.scalar(statement, place.values(tenant_id, key_id)))


async def sealed(
    session: Session, tenant_id: UUID, place: Place, key_id: UUID, after: UUID, limit: int
) -> list[tuple[UUID, bytes]]:
    """The next values under a key behind row ``after``, locked."""
    statement = text(
        f"select id, {place.column} as blob from {place.table} where id > :after and {place.under_key}"  # noqa: S608  # as above
        " order by id limit :limit for update"
    )
    values = {**place.values(tenant_id, key_id), "after": after, "limit": limit}
    return [(row.id, bytes(row.blob)) for row in await session.execute(statement, values)]


async def write_sealed(
    session: Session, tenant_id: UUID, place: Place, values: Sequence[tuple[UUID, bytes]]
) -> None:
    """Put new blobs into locked rows."""
    owned = " and tenant_id = :tenant" if place.owned else ""
    statement = text(f"update {place.table} set {place.column} = :blob where id = :id{owned}")  # noqa: S608  # as above
    if values:
        rows = [{"id": row_id, "blob": blob} for row_id, blob in values]
        await session.execute(
            statement, [{**row, "tenant": tenant_id} for row in rows] if place.owned else rows
        )
