"""What must be found before the tenant is known: a channel by its key, tenants by name (platform role); and what a new
tenant begins with. Who signs in is found in accounts.py.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from storage.errors import NotFound
from storage.ids import new_id
from storage.sql import Session, text


@dataclass(frozen=True)
class TenantInfo:
    """A tenant's settings as the message path needs them."""

    id: UUID
    slug: str
    name: str
    languages: tuple[str, ...]
    time_zone: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ChannelRef:
    """A channel and whose it is."""

    id: UUID
    tenant_id: UUID
    tenant_name: str
    languages: tuple[str, ...]
    kind: str
    name: str
    public_key: str
    allowed_origins: tuple[str, ...]
    settings: dict[str, Any]


async def channel_by_key(session: Session, public_key: str, kind: str) -> ChannelRef | None:
    row = (
        await session.execute(
            text("""
            select c.id, c.tenant_id, t.name as tenant_name, t.languages, c.kind, c.name, c.public_key, c.allowed_origins, c.settings
              from channels c join tenants t on t.id = c.tenant_id
             where c.public_key = :key and c.kind = :kind and t.state = 'active'
            """),
            {"key": public_key, "kind": kind},
        )
    ).one_or_none()
    if row is None:
        return None
    values = dict(row._mapping)
    return ChannelRef(
        **{**values, "languages": tuple(row.languages), "allowed_origins": tuple(row.allowed_origins)}
    )


async def tenant_by_slug(session: Session, slug: str) -> TenantInfo:
    """A tenant by its short name.

    Raises:
        NotFound: no such tenant.
    """
    row = (
        await session.execute(
            text("select id, slug, name, languages, time_zone, settings from tenants where slug = :slug"),
            {"slug": slug},
        )
    ).one_or_none()
    if row is None:
        raise NotFound(f"No tenant is called {slug!r}.")
    return TenantInfo(row.id, row.slug, row.name, tuple(row.languages), row.time_zone, row.settings)


async def ensure_widget(
    session: Session, settings: dict[str, Any], *, key: str, origins: Sequence[str]
) -> None:
    """Make the web widget of a tenant session's tenant where it has none. An old one keeps its key and settings
    and takes the origins over.
    """
    await session.execute(
        text("""
        insert into channels (id, kind, name, public_key, settings)
        select :id, 'widget', 'Web site', :key, cast(:settings as jsonb)
         where not exists (select from channels where kind = 'widget')
        """),
        {"id": new_id(), "key": key, "settings": json.dumps(settings, ensure_ascii=False)},
    )
    await session.execute(
        text("update channels set allowed_origins = :origins where kind = 'widget'"),
        {"origins": list(origins)},
    )


async def tenant_ids(session: Session) -> list[UUID]:
    return list(await session.scalars(text("select id from tenants order by id")))


async def first_channel_key(session: Session, tenant_slug: str, kind: str) -> str | None:
    """The public key of a tenant's oldest channel of a kind."""
    key: str | None = await session.scalar(
        text("""
        select c.public_key from channels c join tenants t on t.id = c.tenant_id where t.slug = :slug and c.kind = :kind
         order by c.created_at limit 1
        """),
        {"slug": tenant_slug, "kind": kind},
    )
    return key
