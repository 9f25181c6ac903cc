"""Who works in a business and what each may do: members, roles, service accounts and their keys. For tenant sessions, except
where it says otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.errors import Conflict, NotFound
from storage.ids import new_id
from storage.permissions import OWNER
from storage.sql import Session, text
from storage.tenancy import rowcount


@dataclass(frozen=True)
class KeyStanding:
    """Everything that decides what an API key may do."""

    key_id: UUID
    tenant_id: UUID
    service_account_id: UUID
    key_hash: bytes
    scopes: tuple[str, ...]
    allowed_networks: tuple[str, ...]
    expired: bool
    revoked: bool
    disabled: bool
    tenant_state: str
    last_used_at: datetime | None
    now: datetime


_MEMBER = """
    select m.id, m.account_id, m.email, m.name, m.state, m.role_id, r.key as role, m.created_at
      from members m join roles r on r.id = m.role_id
"""
_KEY = "id, service_account_id, name, prefix, scopes, allowed_networks, created_at, expires_at, last_used_at, replaces, revoked_at"


async def list_members(session: Session, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """Members in the order of their ids, which is that in which they came."""
    rows = await session.execute(
        text(_MEMBER + " where (cast(:after as uuid) is null or m.id > :after) order by m.id limit :limit"),
        {"after": after, "limit": limit},
    )
    return [dict(row._mapping) for row in rows]


async def is_member(session: Session, email: str) -> bool:
    """Whether somebody with this (folded) address is a member, active or not."""
    return bool(
        await session.scalar(
            text("select exists (select from members where email = :email)"), {"email": email}
        )
    )


async def member(session: Session, member_id: UUID, *, lock: bool = False) -> dict[str, Any]:
    """One member.

    Raises:
        NotFound: missing, or another tenant's.
    """
    row = (
        await session.execute(
            text(_MEMBER + " where m.id = :id" + (" for update of m" if lock else "")), {"id": member_id}
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such member.")
    return dict(row._mapping)


async def set_member(session: Session, member_id: UUID, *, role_id: UUID | None, state: str | None) -> None:
    """Change role or state; the version of their rights rises, so that sessions are made anew.

    Raises:
        Conflict: nobody would be left who owns the business.
    """
    # The lock on the owner role puts two such changes in order: both could else see the other one left.
    await session.execute(text("select id from roles where key = :owner for update"), {"owner": OWNER})
    before = await _owners(session)
    await session.execute(
        text("""
        update members set role_id = coalesce(:role, role_id), state = coalesce(:state, state), rights_version = rights_version + 1
         where id = :id
        """),
        {"id": member_id, "role": role_id, "state": state},
    )
    if before and not await _owners(session):
        raise Conflict("The business needs at least one active owner.")


async def _owners(session: Session) -> int:
    """How many active owners there are."""
    return int(
        await session.scalar(
            text(
                "select count(*) from members m join roles r on r.id = m.role_id where r.key = :owner and m.state = 'active'"
            ),
            {"owner": OWNER},
        )
    )


async def list_roles(session: Session) -> list[dict[str, Any]]:
    rows = await session.execute(
        text("select id, key, name, permissions, system from roles order by system desc, key")
    )
    return [dict(row._mapping) for row in rows]


async def role(session: Session, role_id: UUID, *, lock: bool = False) -> dict[str, Any]:
    """One role. With ``lock`` whoever is just being given it is waited for, and whoever comes later waits.

    Raises:
        NotFound: missing, or another tenant's.
    """
    row = (
        await session.execute(
            text(
                "select id, key, name, permissions, system from roles where id = :id"
                + (" for update" if lock else "")
            ),
            {"id": role_id},
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such role.")
    return dict(row._mapping)


async def role_by_key(session: Session, key: str) -> dict[str, Any]:
    """One role by its key.

    Raises:
        NotFound: no such role.
    """
    row = (
        await session.execute(
            text("select id, key, name, permissions, system from roles where key = :key"), {"key": key}
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such role.")
    return dict(row._mapping)


async def role_of(session: Session, tenant_id: UUID, role_id: UUID) -> dict[str, Any] | None:
    """A role of a tenant, for identity sessions, which see all tenants'."""
    row = (
        await session.execute(
            text(
                "select id, key, name, permissions, system from roles where tenant_id = :tenant and id = :id"
            ),
            {"tenant": tenant_id, "id": role_id},
        )
    ).one_or_none()
    return None if row is None else dict(row._mapping)


async def add_role(session: Session, key: str, name: str, permissions: Sequence[str]) -> UUID:
    """A role of the tenant's own.

    Raises:
        Conflict: the key is taken.
    """
    created: UUID | None = await session.scalar(
        text("""
        insert into roles (id, key, name, permissions) values (:id, :key, :name, :permissions) on conflict do nothing returning id
        """),
        {"id": new_id(), "key": key, "name": name, "permissions": list(permissions)},
    )
    if created is None:
        raise Conflict("A role with this key exists.")
    return created


async def set_role(
    session: Session, role_id: UUID, name: str | None, permissions: Sequence[str] | None
) -> None:
    """Change a role of the tenant's own; all who have it get new sessions."""
    await session.execute(
        text("""
        update roles set name = coalesce(:name, name), permissions = coalesce(cast(:permissions as text[]), permissions)
         where id = :id and not system
        """),
        {
            "id": role_id,
            "name": name,
            "permissions": None if permissions is None else list(permissions),
        },
    )
    await session.execute(
        text("update members set rights_version = rights_version + 1 where role_id = :id"), {"id": role_id}
    )


async def remove_role(session: Session, role_id: UUID) -> None:
    """Remove a role of the tenant's own, which was locked by ``role``.

    Raises:
        Conflict: somebody has it.
    """
    if await session.scalar(text("select exists (select from members where role_id = :id)"), {"id": role_id}):
        raise Conflict("Somebody has this role. Give them another one first.")
    await session.execute(text("delete from roles where id = :id and not system"), {"id": role_id})


# --- service accounts and API keys ----------------------------------------------------------------------------------


async def list_service_accounts(session: Session) -> list[dict[str, Any]]:
    rows = await session.execute(
        text("select id, name, scopes, created_at, disabled_at from service_accounts order by created_at, id")
    )
    return [dict(row._mapping) for row in rows]


async def service_account(session: Session, account_id: UUID, *, lock: bool = False) -> dict[str, Any]:
    """One service account.

    Raises:
        NotFound: missing, or another tenant's.
    """
    row = (
        await session.execute(
            text(
                "select id, name, scopes, created_at, disabled_at from service_accounts where id = :id"
                + (" for update" if lock else "")
            ),
            {"id": account_id},
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such service account.")
    return dict(row._mapping)


async def add_service_account(session: Session, name: str, scopes: Sequence[str]) -> UUID:
    """A program that acts for the business.

    Raises:
        Conflict: the name is taken.
    """
    created: UUID | None = await session.scalar(
        text(
            "insert into service_accounts (id, name, scopes) values (:id, :name, :scopes) on conflict do nothing returning id"
        ),
        {"id": new_id(), "name": name, "scopes": list(scopes)},
    )
    if created is None:
        raise Conflict("A service account with this name exists.")
    return created


async def disable_service_account(session: Session, account_id: UUID) -> None:
    """End it, and all its keys.

    Raises:
        NotFound: missing, or another tenant's.
    """
    result = await session.execute(
        text(
            "update service_accounts set disabled_at = coalesce(disabled_at, clock_timestamp()) where id = :id"
        ),
        {"id": account_id},
    )
    if rowcount(result) != 1:
        raise NotFound("No such service account.")
    await session.execute(
        text(
            "update api_keys set revoked_at = coalesce(revoked_at, clock_timestamp()) where service_account_id = :id"
        ),
        {"id": account_id},
    )


async def list_keys(
    session: Session, service_account_id: UUID, *, limit: int | None = None
) -> list[dict[str, Any]]:
    """An account's keys, newest first; all of them where no limit is given."""
    rows = await session.execute(
        text(
            f"select {_KEY} from api_keys where service_account_id = :id order by created_at desc, id desc limit :limit"
        ),
        {"id": service_account_id, "limit": limit},
    )
    return [dict(row._mapping) for row in rows]


async def key(session: Session, key_id: UUID) -> dict[str, Any]:
    """One key, without its hash.

    Raises:
        NotFound: missing, or another tenant's.
    """
    row = (
        await session.execute(text(f"select {_KEY} from api_keys where id = :id"), {"id": key_id})
    ).one_or_none()
    if row is None:
        raise NotFound("No such key.")
    return dict(row._mapping)


async def add_key(
    session: Session,
    service_account_id: UUID,
    *,
    name: str,
    prefix: str,
    key_hash: bytes,
    scopes: Sequence[str],
    allowed_networks: Sequence[str],
    expires_at: datetime | None,
    replaces: UUID | None = None,
) -> UUID:
    key_id = new_id()
    await session.execute(
        text("""
        insert into api_keys (id, service_account_id, name, prefix, key_hash, scopes, allowed_networks, expires_at, replaces)
        values (:id, :account, :name, :prefix, :hash, :scopes, :networks, :expires, :replaces)
        """),
        {
            "id": key_id,
            "account": service_account_id,
            "name": name,
            "prefix": prefix,
            "hash": key_hash,
            "scopes": list(scopes),
            "networks": list(allowed_networks),
            "expires": expires_at,
            "replaces": replaces,
        },
    )
    return key_id


async def end_key(session: Session, key_id: UUID, *, in_seconds: int = 0) -> None:
    """Revoke a key now, or let it run out after an overlap."""
    await session.execute(
        text("""
        update api_keys set revoked_at = case when :overlap = 0 then coalesce(revoked_at, clock_timestamp()) else revoked_at end,
               expires_at = case when :overlap > 0
                                 then least(coalesce(expires_at, 'infinity'), clock_timestamp() + make_interval(secs => :overlap))
                                 else expires_at end
         where id = :id
        """),
        {"id": key_id, "overlap": in_seconds},
    )


async def key_by_prefix(session: Session, prefix: str) -> KeyStanding | None:
    """Whose key this is. For identity sessions: the tenant is known only then."""
    row = (
        await session.execute(
            text("""
            select k.id as key_id, k.tenant_id, k.service_account_id, k.key_hash, k.scopes as key_scopes, s.scopes as own_scopes,
                   k.allowed_networks, coalesce(k.expires_at <= clock_timestamp(), false) as expired,
                   k.revoked_at is not null as revoked, s.disabled_at is not null as disabled, t.state as tenant_state,
                   k.last_used_at, clock_timestamp() as now
              from api_keys k join service_accounts s on s.tenant_id = k.tenant_id and s.id = k.service_account_id
              join tenants t on t.id = k.tenant_id where k.prefix = :prefix
            """),
            {"prefix": prefix},
        )
    ).one_or_none()
    if row is None:
        return None
    return KeyStanding(
        key_id=row.key_id,
        tenant_id=row.tenant_id,
        service_account_id=row.service_account_id,
        key_hash=bytes(row.key_hash),
        # Taking a permission from the program takes it from its keys.
        scopes=tuple(scope for scope in row.key_scopes if scope in row.own_scopes),
        allowed_networks=tuple(row.allowed_networks),
        expired=row.expired,
        revoked=row.revoked,
        disabled=row.disabled,
        tenant_state=row.tenant_state,
        last_used_at=row.last_used_at,
        now=row.now,
    )


async def touch_key(session: Session, key_id: UUID) -> None:
    """Note that a key was used. For identity sessions."""
    await session.execute(
        text("update api_keys set last_used_at = clock_timestamp() where id = :id"), {"id": key_id}
    )
