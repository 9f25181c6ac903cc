"""People who sign in, and in which businesses they are members. For identity sessions: accounts belong to no tenant."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.errors import Conflict, NotFound
from storage.ids import new_id
from storage.permissions import PLATFORM_ROLES, SYSTEM_ROLES
from storage.sql import Session, text
from storage.tenancy import PLATFORM_TENANT, rowcount


@dataclass(frozen=True)
class Account:
    """A person, with what their proofs are compared with. ``totp_secret`` is sealed."""

    id: UUID
    email: str
    name: str
    language: str
    state: str
    email_verified_at: datetime | None
    password_hash: str | None
    security_version: int
    totp_secret: bytes | None
    totp_confirmed_at: datetime | None
    totp_last_step: int | None
    passkeys: int

    @property
    def has_second_factor(self) -> bool:
        return self.totp_confirmed_at is not None or self.passkeys > 0


@dataclass(frozen=True)
class Membership:
    """A business that a person may work in."""

    tenant_id: UUID
    slug: str
    name: str
    state: str
    role: str
    member_state: str


_ACCOUNT = """
    select a.id, a.email, a.name, a.language, a.state, a.email_verified_at, a.password_hash, a.security_version, a.totp_secret,
           a.totp_confirmed_at, a.totp_last_step, (select count(*) from passkeys p where p.account_id = a.id) as passkeys
      from accounts a
"""


def fold_email(value: str) -> str:
    """The form under which an e-mail address is unique."""
    return value.strip().lower()


async def by_email(session: Session, email: str) -> Account | None:
    row = (
        await session.execute(text(_ACCOUNT + " where a.email = :email"), {"email": fold_email(email)})
    ).one_or_none()
    return None if row is None else Account(**row._mapping)


async def by_id(session: Session, account_id: UUID) -> Account:
    """One account.

    Raises:
        NotFound: it was deleted.
    """
    row = (await session.execute(text(_ACCOUNT + " where a.id = :id"), {"id": account_id})).one_or_none()
    if row is None:
        raise NotFound("No such account.")
    return Account(**row._mapping)


async def add(
    session: Session, *, email: str, name: str, password_hash: str | None, language: str, verified: bool
) -> UUID | None:
    """A new account; None where the e-mail address has one."""
    created: UUID | None = await session.scalar(
        text("""
        insert into accounts (id, email, name, password_hash, password_changed_at, language, email_verified_at)
        values (:id, :email, :name, :hash, clock_timestamp(), :language, case when :verified then clock_timestamp() end)
        on conflict (email) do nothing returning id
        """),
        {
            "id": new_id(),
            "email": fold_email(email),
            "name": name,
            "hash": password_hash,
            "language": language,
            "verified": verified,
        },
    )
    return created


async def verify_email(session: Session, account_id: UUID) -> None:
    await session.execute(
        text(
            "update accounts set email_verified_at = coalesce(email_verified_at, clock_timestamp()) where id = :id"
        ),
        {"id": account_id},
    )


async def set_password(session: Session, account_id: UUID, password_hash: str, *, end_proofs: bool) -> None:
    """Store a new hash. ``end_proofs``: all sessions and tokens of the account end (they carry the old version)."""
    await session.execute(
        text("""
        update accounts set password_hash = :hash, password_changed_at = clock_timestamp(),
               security_version = security_version + case when :ends then 1 else 0 end where id = :id
        """),
        {"id": account_id, "hash": password_hash, "ends": end_proofs},
    )


async def set_profile(session: Session, account_id: UUID, name: str | None, language: str | None) -> None:
    """Change name or language; memberships carry a copy of the name."""
    await session.execute(
        text(
            "update accounts set name = coalesce(:name, name), language = coalesce(:language, language) where id = :id"
        ),
        {"id": account_id, "name": name, "language": language},
    )
    await session.execute(
        text("update members set name = coalesce(:name, name) where account_id = :id"),
        {"id": account_id, "name": name},
    )


async def signed_in(session: Session, account_id: UUID) -> None:
    await session.execute(
        text("update accounts set last_sign_in_at = clock_timestamp() where id = :id"), {"id": account_id}
    )


# --- second factors -------------------------------------------------------------------------------------------------


async def set_totp(
    session: Session, account_id: UUID, sealed: bytes | None, *, confirmed: bool, step: int | None = None
) -> None:
    """Store, confirm (``confirmed`` with the sealed secret again) or remove (None) the secret."""
    await session.execute(
        text("""
        update accounts set totp_secret = :secret, totp_last_step = :step,
               totp_confirmed_at = case when :confirmed then clock_timestamp() end where id = :id
        """),
        {"id": account_id, "secret": sealed, "confirmed": confirmed, "step": step},
    )


async def use_totp_step(session: Session, account_id: UUID, step: int) -> bool:
    """Mark a code's time step as used; False where it, or a later one, was used before."""
    result = await session.execute(
        text(
            "update accounts set totp_last_step = :step where id = :id and coalesce(totp_last_step, -1) < :step"
        ),
        {"id": account_id, "step": step},
    )
    return rowcount(result) == 1


async def replace_recovery_codes(session: Session, account_id: UUID, hashes: Sequence[bytes]) -> None:
    await session.execute(
        text("delete from recovery_codes where account_id = :account"), {"account": account_id}
    )
    if hashes:
        await session.execute(
            text("insert into recovery_codes (id, account_id, code_hash) values (:id, :account, :hash)"),
            [{"id": new_id(), "account": account_id, "hash": value} for value in hashes],
        )


async def use_recovery_code(session: Session, account_id: UUID, code_hash: bytes) -> bool:
    result = await session.execute(
        text("""
        update recovery_codes set used_at = clock_timestamp() where account_id = :account and code_hash = :hash and used_at is null
        """),
        {"account": account_id, "hash": code_hash},
    )
    return rowcount(result) == 1


async def recovery_codes_left(session: Session, account_id: UUID) -> int:
    return int(
        await session.scalar(
            text("select count(*) from recovery_codes where account_id = :account and used_at is null"),
            {"account": account_id},
        )
    )


async def passkeys(session: Session, account_id: UUID) -> list[Any]:
    rows = await session.execute(
        text("""
        select id, credential_id, public_key, sign_count, name, created_at, last_used_at from passkeys where account_id = :account
         order by created_at
        """),
        {"account": account_id},
    )
    return [row._mapping for row in rows]


async def add_passkey(
    session: Session,
    account_id: UUID,
    *,
    credential_id: bytes,
    public_key: bytes,
    sign_count: int,
    name: str,
) -> UUID:
    """A new passkey.

    Raises:
        Conflict: this credential is registered.
    """
    created: UUID | None = await session.scalar(
        text("""
        insert into passkeys (id, account_id, credential_id, public_key, sign_count, name)
        values (:id, :account, :credential, :key, :count, :name) on conflict do nothing returning id
        """),
        {
            "id": new_id(),
            "account": account_id,
            "credential": credential_id,
            "key": public_key,
            "count": sign_count,
            "name": name,
        },
    )
    if created is None:
        raise Conflict("This passkey is registered already.")
    return created


async def used_passkey(session: Session, passkey_id: UUID, sign_count: int) -> None:
    await session.execute(
        text("update passkeys set sign_count = :count, last_used_at = clock_timestamp() where id = :id"),
        {"id": passkey_id, "count": sign_count},
    )


async def remove_passkey(session: Session, account_id: UUID, passkey_id: UUID) -> None:
    """Remove one.

    Raises:
        NotFound: none of this account's.
    """
    result = await session.execute(
        text("delete from passkeys where id = :id and account_id = :account"),
        {"id": passkey_id, "account": account_id},
    )
    if rowcount(result) != 1:
        raise NotFound("No such passkey.")


# --- businesses and memberships -------------------------------------------------------------------------------------


async def memberships(session: Session, account_id: UUID) -> list[Membership]:
    """In which businesses a person works, the longest first."""
    rows = await session.execute(
        text("""
        select m.tenant_id, t.slug, t.name, t.state, r.key as role, m.state as member_state
          from members m join tenants t on t.id = m.tenant_id join roles r on r.tenant_id = m.tenant_id and r.id = m.role_id
         where m.account_id = :account order by m.created_at, m.tenant_id
        """),
        {"account": account_id},
    )
    return [Membership(**row._mapping) for row in rows]


async def add_tenant(
    session: Session, *, slug: str, name: str, languages: Sequence[str], time_zone: str, state: str
) -> UUID | None:
    """A new business with the system roles; None where the short name is taken."""
    tenant_id: UUID | None = await session.scalar(
        text("""
        insert into tenants (id, slug, name, languages, time_zone, state) values (:id, :slug, :name, :languages, :zone, :state)
        on conflict (slug) do nothing returning id
        """),
        {
            "id": new_id(),
            "slug": slug,
            "name": name,
            "languages": list(languages),
            "zone": time_zone,
            "state": state,
        },
    )
    if tenant_id is not None:
        await add_system_roles(session, tenant_id)
    return tenant_id


async def add_system_roles(session: Session, tenant_id: UUID) -> None:
    """The roles that every tenant has; those that are there stay."""
    roles = PLATFORM_ROLES if tenant_id == PLATFORM_TENANT else SYSTEM_ROLES
    await session.execute(
        text("""
        insert into roles (tenant_id, id, key, name, permissions, system) values (:tenant, :id, :key, :name, :permissions, true)
        on conflict (tenant_id, key) do nothing
        """),
        [
            {
                "tenant": tenant_id,
                "id": new_id(),
                "key": role.key,
                "name": role.name,
                "permissions": list(role.permissions),
            }
            for role in roles
        ],
    )


async def sync_system_roles(session: Session) -> None:
    """Give every tenant the system roles as this version knows them (platform session)."""
    for tenant_id in list(await session.scalars(text("select id from tenants"))):
        await add_system_roles(session, tenant_id)
    for role in (*SYSTEM_ROLES, *PLATFORM_ROLES):
        await session.execute(
            text(
                "update roles set permissions = :permissions, name = :name where key = :key and system and permissions <> :permissions"
            ),
            {"key": role.key, "name": role.name, "permissions": list(role.permissions)},
        )


async def activate_pending(session: Session, account_id: UUID) -> list[UUID]:
    """Open the businesses that waited for this person's e-mail address to be verified."""
    rows = await session.execute(
        text("""
        update tenants t set state = 'active' from members m join roles r on r.tenant_id = m.tenant_id and r.id = m.role_id
         where m.account_id = :account and m.tenant_id = t.id and r.key = 'owner' and t.state = 'pending' returning t.id
        """),
        {"account": account_id},
    )
    return [row.id for row in rows]


async def join(session: Session, tenant_id: UUID, account: Account, role_id: UUID) -> bool:
    """Make a person a member; False where they are one (a disabled one stays disabled), or the role is gone."""
    result = await session.execute(
        text("""
        insert into members (tenant_id, id, account_id, role_id, email, name)
        select tenant_id, :id, :account, id, :email, :name from roles where tenant_id = :tenant and id = :role
        on conflict (tenant_id, account_id) do nothing
        """),
        {
            "tenant": tenant_id,
            "id": new_id(),
            "account": account.id,
            "role": role_id,
            "email": account.email,
            "name": account.name,
        },
    )
    return rowcount(result) == 1


async def has_role(session: Session, tenant_id: UUID, role_id: UUID) -> bool:
    """Whether a tenant has a role. One that is removed before the commit still fails by its key."""
    return (
        await session.scalar(
            text("select id from roles where tenant_id = :tenant and id = :id"),
            {"tenant": tenant_id, "id": role_id},
        )
    ) is not None


async def role_id(session: Session, tenant_id: UUID, key: str) -> UUID:
    """A role of a tenant by its key.

    Raises:
        NotFound: no such role.
    """
    found: UUID | None = await session.scalar(
        text("select id from roles where tenant_id = :tenant and key = :key"),
        {"tenant": tenant_id, "key": key},
    )
    if found is None:
        raise NotFound("No such role.")
    return found
