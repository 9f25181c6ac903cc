"""The edge's two questions to the database: what became of a request with an Idempotency-Key, and which origins tenants list."""

from collections.abc import Mapping
from uuid import UUID

from server.protection.idempotency import Begun, Busy, Different, Lost, Replay
from storage.repositories import idempotency, tenants
from storage.tenancy import Database, TenantContext


class StoredAnswers:
    """``IdempotencyStore`` in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self, context: TenantContext, key: str, fingerprint: str
    ) -> Begun | Replay | Busy | Different | Lost:
        async with self._database.tenant_session(context) as session:
            known = await idempotency.begin(session, context.actor, key, fingerprint)
        if known is None:
            return Begun()
        if known.fingerprint != bytes.fromhex(fingerprint):
            return Different()
        if known.state == "done" and known.status is not None and known.body is not None:
            return Replay(known.status, known.headers, known.body)
        # Begun long ago and never ended: its process died, perhaps after an effect that this row did not see.
        return Busy() if known.state == "begun" and known.locked else Lost()

    async def finish(
        self, context: TenantContext, key: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        async with self._database.tenant_session(context) as session:
            await idempotency.finish(session, context.actor, key, status, headers, body)

    async def abandon(self, context: TenantContext, key: str) -> None:
        async with self._database.tenant_session(context) as session:
            await idempotency.abandon(session, context.actor, key)


class TenantOrigins:
    """``OriginBook`` in PostgreSQL; to be asked through ``CachedOrigins``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def known(self, origin: str) -> bool:
        async with self._database.identity_session() as session:
            return await tenants.origin_known(session, origin)

    async def allowed(self, tenant_id: UUID, origin: str) -> bool:
        async with self._database.identity_session() as session:
            return await tenants.origin_allowed(session, tenant_id, origin)
