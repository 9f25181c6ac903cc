"""Tenants with keys over the test's own database, without the rest of the product."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from storage.crypto.cipher import Subject
from storage.crypto.envelope import key_id_of
from storage.crypto.keyring import Keyring
from storage.crypto.masters import KeyContext, MasterKeys, StaticMasters
from storage.files import FileStore
from storage.settings import StorageSettings
from storage.sql import text
from storage.tenancy import PLATFORM_TENANT, Database, TenantContext

FIRST, SECOND = {"mk-1": bytes([1]) * 32}, {"mk-2": bytes([2]) * 32}


class CountingMasters(StaticMasters):
    """Counts how often it is asked to unwrap."""

    asked = 0

    async def unwrap(self, key_id: str, blob: bytes, context: KeyContext) -> bytes:
        self.asked += 1
        return await super().unwrap(key_id, blob, context)


@dataclass
class World:
    """A process's view; ``restarted`` is another process's, and ends with the first."""

    settings: StorageSettings
    files: FileStore
    tenant: TenantContext
    other: TenantContext
    masters: MasterKeys
    keyring: Keyring = field(init=False)
    database: Database = field(init=False)
    family: list["World"] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.keyring = Keyring(self.masters)
        self.database = Database(self.settings, self.keyring, "test")
        self.family.append(self)

    def restarted(self, masters: MasterKeys | None = None) -> "World":
        return replace(self, masters=masters or self.masters)

    async def rows(self, sql: str, context: TenantContext | None = None, **values: Any) -> list[Any]:
        async with self.database.tenant_session(context or self.tenant) as session:
            return list((await session.execute(text(sql), values)).all())

    async def add_channels(self, count: int) -> dict[UUID, str]:
        """Channels with a secret under the tenant's key; what each is."""
        secrets = {uuid4(): f"token {number}" for number in range(count)}
        async with self.database.tenant_session(self.tenant) as session:
            sealer = await session.cipher.local(Subject.tenant())
            for row_id, secret in secrets.items():
                await session.execute(
                    text(
                        "insert into channels (id, kind, name, public_key, secrets) values (:id, 'x', 'x', :key, :blob)"
                    ),
                    {
                        "id": row_id,
                        "key": str(row_id),
                        "blob": sealer.seal("channels.secrets", row_id, secret),
                    },
                )
        return secrets

    async def read_channels(self) -> tuple[dict[UUID, str | None], set[UUID]]:
        """Secrets by row, and the keys that they are under."""
        async with self.database.tenant_session(self.tenant) as session:
            rows = (await session.execute(text("select id, secrets from channels order by id"))).all()
            blobs = [(row.id, bytes(row.secrets)) for row in rows]
            opened = await session.cipher.open_many("channels.secrets", blobs)
        return dict(zip([row_id for row_id, _ in blobs], opened, strict=True)), {
            key_id_of(blob) for _, blob in blobs
        }


async def make_world(settings: StorageSettings, folder: Path, masters: MasterKeys | None = None) -> World:
    tenant, other = (TenantContext(uuid4(), actor="user:test") for _ in range(2))
    world = World(settings, FileStore(folder), tenant, other, masters or CountingMasters(FIRST))
    async with world.database.platform_session("test") as session:
        for tenant_id, slug in (
            (tenant.tenant_id, "acme"),
            (other.tenant_id, "globex"),
            (PLATFORM_TENANT, "platform"),
        ):
            await session.execute(
                text(
                    "insert into tenants (id, slug, name) values (:id, :slug, :slug) on conflict do nothing"
                ),
                {"id": tenant_id, "slug": slug},
            )
    return world


async def close(world: World) -> None:
    for process in world.family:
        await process.database.aclose()
