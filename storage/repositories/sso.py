"""A business's identity providers, and which person is who there. A person is (connection, subject), never an e-mail address."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.crypto.cipher import Subject
from storage.errors import Conflict, NotFound
from storage.ids import new_id
from storage.sql import Session, text
from storage.tenancy import rowcount

_SECRET = "sso_connections.client_secret"  # noqa: S105  # the column's name


@dataclass(frozen=True)
class Connection:
    """A provider with what it takes to speak to it. ``sealed_secret`` is opened by ``open_secret``."""

    id: UUID
    tenant_id: UUID
    tenant_slug: str
    tenant_state: str
    issuer: str
    client_id: str
    sealed_secret: bytes
    enabled: bool


# --- connections, for their owners (tenant session) -----------------------------------------------------------------


async def list_connections(session: Session) -> list[dict[str, Any]]:
    rows = await session.execute(
        text("select id, issuer, client_id, enabled, created_at from sso_connections order by created_at, id")
    )
    return [dict(row._mapping) for row in rows]


async def connection(session: Session, connection_id: UUID) -> dict[str, Any]:
    """One connection, without its secret.

    Raises:
        NotFound: missing, or another tenant's.
    """
    row = (
        await session.execute(
            text("select id, issuer, client_id, enabled, created_at from sso_connections where id = :id"),
            {"id": connection_id},
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such connection.")
    return dict(row._mapping)


async def add_connection(session: Session, issuer: str, client_id: str, client_secret: str) -> UUID:
    """A provider of the tenant's; the secret is sealed under the tenant's key.

    Raises:
        Conflict: this issuer is connected.
    """
    connection_id = new_id()
    created = await session.scalar(
        text("""
        insert into sso_connections (id, issuer, client_id, client_secret) values (:id, :issuer, :client, :secret)
        on conflict do nothing returning id
        """),
        {
            "id": connection_id,
            "issuer": issuer,
            "client": client_id,
            "secret": await session.cipher.seal(_SECRET, connection_id, Subject.tenant(), client_secret),
        },
    )
    if created is None:
        raise Conflict("This issuer is connected already.")
    return connection_id


async def set_connection(
    session: Session,
    connection_id: UUID,
    *,
    client_id: str | None,
    client_secret: str | None,
    enabled: bool | None,
) -> None:
    """Change a connection. Never its issuer: the same subject at another provider would be another person."""
    sealed = (
        await session.cipher.seal(_SECRET, connection_id, Subject.tenant(), client_secret)
        if client_secret is not None
        else None
    )
    await session.execute(
        text("""
        update sso_connections set client_id = coalesce(:client, client_id), client_secret = coalesce(:secret, client_secret),
               enabled = coalesce(:enabled, enabled) where id = :id
        """),
        {"id": connection_id, "client": client_id, "secret": sealed, "enabled": enabled},
    )


async def remove_connection(session: Session, connection_id: UUID) -> None:
    await session.execute(text("delete from sso_connections where id = :id"), {"id": connection_id})


# --- signing in (identity session: it sees all tenants' connections) ------------------------------------------------

_CONNECTION = """
    select c.id, c.tenant_id, t.slug as tenant_slug, t.state as tenant_state, c.issuer, c.client_id,
           c.client_secret as sealed_secret, c.enabled
      from sso_connections c join tenants t on t.id = c.tenant_id
"""


async def first_of(session: Session, slug: str, connection_id: UUID | None) -> Connection | None:
    """The connection by which people of a business sign in: the one that is named, else the oldest; None where none is open."""
    row = (
        await session.execute(
            text(
                _CONNECTION
                + " where t.slug = :slug and t.state = 'active' and c.enabled and (cast(:id as uuid) is null or c.id = :id)"
                + " order by c.created_at, c.id limit 1"
            ),
            {"slug": slug, "id": connection_id},
        )
    ).one_or_none()
    return _connection(row)


async def by_id(session: Session, tenant_id: UUID, connection_id: UUID) -> Connection | None:
    """A connection as it is now, open or not."""
    row = (
        await session.execute(
            text(_CONNECTION + " where c.tenant_id = :tenant and c.id = :id"),
            {"tenant": tenant_id, "id": connection_id},
        )
    ).one_or_none()
    return _connection(row)


def _connection(row: Any) -> Connection | None:
    return None if row is None else Connection(**{**row._mapping, "sealed_secret": bytes(row.sealed_secret)})


async def open_secret(session: Session, found: Connection) -> str:
    """The client secret; in an identity session of the connection's tenant.

    Raises:
        NotFound: the tenant's key was destroyed.
    """
    secret = await session.cipher.open(_SECRET, found.id, found.sealed_secret)
    if secret is None:
        raise NotFound("This connection cannot be used any more.")
    return secret


async def account_of(session: Session, connection_id: UUID, subject: str) -> UUID | None:
    """Whose account a subject is linked with."""
    account: UUID | None = await session.scalar(
        text(
            "select account_id from sso_identities where connection_id = :connection and subject = :subject"
        ),
        {"connection": connection_id, "subject": subject},
    )
    return account


async def link(session: Session, connection_id: UUID, subject: str, account_id: UUID) -> UUID | None:
    """Link a subject with an account: the new row's id, None where it was linked with this account before.

    Raises:
        Conflict: it is linked with somebody else's.
    """
    created: UUID | None = await session.scalar(
        text("""
        insert into sso_identities (id, account_id, connection_id, subject) values (:id, :account, :connection, :subject)
        on conflict (connection_id, subject) do nothing returning id
        """),
        {"id": new_id(), "account": account_id, "connection": connection_id, "subject": subject},
    )
    if created is None and await account_of(session, connection_id, subject) != account_id:
        raise Conflict("This person of the identity provider is linked with another account.")
    return created


@dataclass(frozen=True)
class LinkedIdentity:
    """An identity of an account; ``tenant_id`` is None where its connection is gone."""

    id: UUID
    connection_id: UUID
    tenant_id: UUID | None
    tenant_slug: str | None
    issuer: str | None
    created_at: datetime


async def identities(session: Session, account_id: UUID) -> list[LinkedIdentity]:
    """With which providers an account is linked. At most as many as a person has made."""
    rows = await session.execute(
        text("""
        select i.id, i.connection_id, c.tenant_id, t.slug as tenant_slug, c.issuer, i.created_at
          from sso_identities i left join sso_connections c on c.id = i.connection_id left join tenants t on t.id = c.tenant_id
         where i.account_id = :account order by i.created_at, i.id limit 200
        """),
        {"account": account_id},
    )
    return [LinkedIdentity(**row._mapping) for row in rows]


async def unlink(session: Session, account_id: UUID, identity_id: UUID) -> None:
    """Take one of an account's identities away.

    Raises:
        NotFound: none of this account's.
    """
    result = await session.execute(
        text("delete from sso_identities where id = :id and account_id = :account"),
        {"id": identity_id, "account": account_id},
    )
    if rowcount(result) != 1:
        raise NotFound("No such identity.")


async def unlink_all(session: Session, connection_id: UUID) -> int:
    """Take all identities of a connection away; how many there were."""
    result = await session.execute(
        text("delete from sso_identities where connection_id = :connection"), {"connection": connection_id}
    )
    return rowcount(result)
