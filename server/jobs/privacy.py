"""Works requests of persons (export, erasure) and keeps retention: done by any worker, in steps that may be repeated. What a killed
worker has left is taken up behind its last finished step when the lease has ended.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from storage.crypto import tombstones
from storage.crypto.cipher import Subject
from storage.crypto.keyring import Keyring
from storage.errors import LeaseLost, NotFound, told
from storage.files import FileStore
from storage.ids import new_id
from storage.privacy.erasure import FORGET_CHANNEL, KEYS, MARK, ROWS, STEPS, VERIFY, Erasure, LegalHold
from storage.privacy.export import ExportOf, archive
from storage.privacy.retention import Retention
from storage.privacy.stores import VECTORS
from storage.privacy.subjects import Scope, scope_of
from storage.redis import EventBus, make_pool
from storage.repositories import audit, directory, privacy, tenants
from storage.repositories.privacy import Claim
from storage.settings import StorageSettings
from storage.tenancy import Database, TenantContext, is_connection_loss

log = structlog.get_logger(__name__)

LEASE_SECONDS = 30.0
MAX_ATTEMPTS = 30
BACKOFF = (5.0, 30.0, 120.0, 600.0, 3600.0)  # seconds after the first, second, … failure
EXPORT_LIFE = timedelta(days=7)
LIMIT = 20
CERTIFICATE = (
    "The data keys were destroyed first: what backups and the database's log still hold of this person cannot be read. "
    "The rows that remain carry ids, times and counts."
)


class NotClean(Exception):
    """The last look found something that came after the rows were forgotten: all steps are done again."""


class PrivacyJob:
    """Works requests.

    Args:
        tombstones_path: the file of destroyed keys, outside the database.
        lease_seconds: how long a dead worker's request waits for another.
    """

    def __init__(
        self,
        database: Database,
        files: FileStore,
        bus: EventBus,
        redis: Redis,
        tombstones_path: Path,
        *,
        lease_seconds: float = LEASE_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._files = files
        self._redis = redis
        self._lease_seconds = lease_seconds
        self._now = now
        self.erasure = Erasure(database, files, redis, bus, tombstones_path, now)
        self.retention = Retention(database, files, self.erasure, now)

    async def run(self, every: float) -> None:
        """Look for requests again and again, until cancelled.

        Args:
            every: seconds between two looks.
        """
        while True:
            try:
                await self.drain()
            except Exception as error:
                if not is_connection_loss(error):
                    log.exception("privacy_drain_failed")
            await asyncio.sleep(every)

    async def keep_retention(self) -> int:
        """Carry the rules of all businesses out, each once a day whatever the number of workers; how much was removed.

        To be called more often than that: what failed is tried again at the next call.
        """
        async with self._database.platform_session("retention: of all businesses") as session:
            chosen = await directory.tenant_ids(session)
        removed = 0
        for tenant_id in chosen:
            key = TenantContext(tenant_id, actor="job:retention").redis_key("retention", self._now().date())
            if not await self._first_today(key):
                continue
            try:
                removed += (await self.retention.run(tenant_id)).total
            except Exception:
                log.exception("retention_failed", tenant_id=str(tenant_id))
                with suppress(RedisError, OSError):
                    await self._redis.delete(key)
        return removed

    async def _first_today(self, key: str) -> bool:
        """Without Redis everybody is the first: twice does no harm. A run that was killed comes again the next day."""
        try:
            return bool(await self._redis.set(key, "1", nx=True, ex=2 * 86_400))
        except (RedisError, OSError):
            return True

    async def drain(self) -> int:
        """Work what is due, one after the other; number of requests that came to their end."""
        async with self._database.platform_session("privacy requests: whose are open") as session:
            due = await privacy.due_requests(session, limit=LIMIT)
        ended = 0
        for tenant_id, request_id in due:
            ended += await self.work(tenant_id, request_id)
        return ended

    async def work(self, tenant_id: UUID, request_id: UUID) -> bool:
        """Work one request; True where it is done (or refused for good), False where somebody else has it, or it failed and comes
        again.
        """
        context = TenantContext(tenant_id, actor="job:privacy", request_id=str(request_id))
        async with self._database.tenant_session(context) as session:
            claim = await privacy.claim(session, request_id, lease_seconds=self._lease_seconds)
        if claim is None:
            return False
        try:
            async with self._kept(context, claim):
                await (self._erase if claim.kind == "erasure" else self._export)(context, claim)
        except LeaseLost:
            log.warning("privacy_lease_lost", request=str(request_id))
            return False
        except (LegalHold, NotFound) as error:
            with suppress(LeaseLost):  # an erasure ends the exports of its person by itself
                await self._end(context, claim, "failed", error=told(error))
        except Exception as error:
            await self._failed(context, claim, error)
            return False
        return True

    async def _erase(self, context: TenantContext, claim: Claim) -> None:
        result = dict(claim.result)
        done = STEPS.index(claim.step) + 1 if claim.step in STEPS else 0
        if done > STEPS.index(KEYS):
            # The process that destroyed them may have died before it could tell.
            await self.erasure.forget([UUID(key) for key in result.get("keys", ())])
        for step in STEPS[done:]:
            async with self._database.tenant_session(context) as session:
                scope = await scope_of(session, claim.contact_id)
            if step == VERIFY:
                await self._certify(context, claim, scope)
            else:
                result |= await self._step(context, claim, scope, step, result)

    async def _step(
        self, context: TenantContext, claim: Claim, scope: Scope, step: str, result: dict[str, Any]
    ) -> dict[str, Any]:
        """One step; what it adds to the certificate. Counts of a second round are added to those of the first."""
        keys = [UUID(key) for key in result.get("keys", ())]
        noted: dict[str, Any]
        if step in self.erasure.stores:
            count = await self.erasure.stores[step].erase(context, scope, keys)
            noted = {step: _sum(result.get(step, 0), count)}
            async with self._database.tenant_session(context) as session:
                await privacy.advance(session, claim, step, noted)
            return noted
        fresh: list[UUID] = []
        async with self._database.tenant_session(context) as session:
            if step == MARK:
                # Once more, with the contact held: a conversation that was just linked to it is one of theirs.
                noted = {MARK: await self.erasure.mark(session, scope)}
                linked = await scope_of(session, claim.contact_id)
                if linked != scope:
                    noted = {MARK: await self.erasure.mark(session, linked)}
            elif step == KEYS:
                fresh = await self.erasure.destroy_keys(session, context, scope)
                noted = {"keys": [*result.get("keys", ()), *map(str, fresh)]}
            else:
                noted = {ROWS: _sum(result.get(ROWS, {}), await self.erasure.forget_rows(session, scope))}
            await privacy.advance(session, claim, step, noted)
        await self.erasure.forget(fresh)
        return noted

    async def _certify(self, context: TenantContext, claim: Claim, scope: Scope) -> None:
        seen = await self.erasure.verify(context, scope)
        if not seen.clean:
            raise NotClean(", ".join(sorted(name for name, count in seen.left.items() if count)))
        noted = {
            "verification": {"at": self._now(), "left": seen.left},
            "vectors": VECTORS,
            "certificate": CERTIFICATE,
        }
        await self._end(context, claim, "done", noted=noted)

    async def _export(self, context: TenantContext, claim: Claim) -> None:
        file_id = claim.file_id or new_id()
        async with self._database.tenant_session(context) as session:
            await privacy.require_contact(session, claim.contact_id)
            scope = await scope_of(session, claim.contact_id)
            tenant = await tenants.get(session, context.tenant_id)
            sealer = await session.cipher.local(Subject.contact(claim.contact_id))
            # Noted before the file is there: a file without a row that knows it would stay for ever.
            await privacy.advance(session, claim, "begun", file_id=file_id)
        about = ExportOf(claim.id, tenant.name, tenant.languages[0], self._now())
        stream = archive(self._database, self._files, context, scope, about)
        stored = await self._files.put_sealed(context, sealer, file_id, stream)
        try:
            async with self._database.tenant_session(context) as session:
                await privacy.require_contact(session, claim.contact_id)
                noted = {"size": stored.size, "sha256": stored.sha256, "threads": len(scope.threads)}
                await privacy.finish(session, claim, "done", noted=noted, life=EXPORT_LIFE)
                await self._record(session, context, claim, "done")
        except (LeaseLost, NotFound):
            await self._files.delete(context, file_id)
            raise

    async def _end(
        self,
        context: TenantContext,
        claim: Claim,
        state: str,
        *,
        noted: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        async with self._database.tenant_session(context) as session:
            await privacy.finish(session, claim, state, noted=noted, error=error)
            await self._record(session, context, claim, state)

    @staticmethod
    async def _record(session: Any, context: TenantContext, claim: Claim, state: str) -> None:
        await audit.record(
            session, context, f"privacy.{claim.kind}.{state}", "contact", claim.contact_id, request=claim.id
        )

    async def _failed(self, context: TenantContext, claim: Claim, error: Exception) -> None:
        if is_connection_loss(error):
            log.warning("privacy_interrupted", error=type(error).__name__)
        else:
            log.error("privacy_failed", request=str(claim.id), attempts=claim.attempts, exc_info=error)
        with suppress(LeaseLost):
            if claim.attempts >= MAX_ATTEMPTS:
                await self._end(context, claim, "failed", error=told(error))
                return
            delay = timedelta(seconds=BACKOFF[min(claim.attempts - 1, len(BACKOFF) - 1)])
            async with self._database.tenant_session(context) as session:
                again = (await privacy.request(session, claim.id))["step"]
                # What was found at the end came after the rows were forgotten; it is forgotten in a new round.
                step = None if isinstance(error, NotClean) else again
                await privacy.put_off(session, claim, told(error), delay, step)

    @asynccontextmanager
    async def _kept(self, context: TenantContext, claim: Claim) -> AsyncIterator[None]:
        """The lease is extended beside the block. Losing it is noticed by the next step that wants to commit."""
        beside = asyncio.create_task(self._keep(context, claim), name="privacy-lease")
        try:
            yield
        finally:
            beside.cancel()
            with suppress(asyncio.CancelledError):
                await beside

    async def _keep(self, context: TenantContext, claim: Claim) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            try:
                async with self._database.tenant_session(context) as session:
                    if not await privacy.extend(session, claim, lease_seconds=self._lease_seconds):
                        return
            except Exception as error:
                log.warning("privacy_heartbeat_failed", error=type(error).__name__)


def _sum(first: Any, second: Any) -> Any:
    if isinstance(second, dict):
        return {name: first.get(name, 0) + count for name, count in second.items()}
    return first + second


@asynccontextmanager
async def opened_privacy(
    database: Database, files: FileStore, bus: EventBus, storage: StorageSettings
) -> AsyncIterator[PrivacyJob]:
    """The job with its own connections to Redis."""
    redis = Redis(connection_pool=make_pool(storage.redis_url or ""))
    try:
        yield PrivacyJob(database, files, bus, redis, storage.data_dir / tombstones.FILE_NAME)
    finally:
        await redis.aclose(close_connection_pool=True)


async def forget_keys(bus: EventBus, keyring: Keyring) -> None:
    """From now on this process drops keys that another one has destroyed. To be called once, in the API and in the worker."""

    async def drop(event: dict[str, Any]) -> None:
        keyring.forget([UUID(key) for key in event["keys"]])

    await bus.subscribe(FORGET_CHANNEL, drop)
