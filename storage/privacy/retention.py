"""Removes what is over its time, one business at a time. A dry run counts with the same conditions and changes nothing.

Conversations go first, as in an erasure but without their contact; what belongs to them is then not counted again as a trace.
May be killed anywhere and be run twice at once: a conversation that was marked and not finished is found again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from storage.files import FileStore
from storage.privacy.erasure import Erasure
from storage.privacy.rules import Rule, aged, rules_of
from storage.privacy.stores import count_checkpoints, delete_checkpoints
from storage.privacy.subjects import Scope
from storage.repositories import audit, privacy, tenants
from storage.repositories import retention as rows
from storage.tenancy import PLATFORM_TENANT, Database, TenantContext

BATCH = 50
Counts = dict[str, dict[str, int]]
Progress = Callable[[str, int], None]
"""Called with (rule, how much so far)."""


@dataclass(frozen=True)
class Report:
    """What a run removed, or would have: numbers by retention key and by what was counted."""

    rules: dict[str, Rule]
    counts: Counts

    @property
    def total(self) -> int:
        return sum(sum(found.values()) for found in self.counts.values())


class Retention:
    """The rules of a business, carried out."""

    def __init__(
        self,
        database: Database,
        files: FileStore,
        erasure: Erasure,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._files = files
        self._erasure = erasure
        self._now = now

    async def run(
        self,
        tenant_id: UUID,
        *,
        dry_run: bool = False,
        proposed: Mapping[str, int | None] | None = None,
        progress: Progress = lambda _rule, _count: None,
    ) -> Report:
        """Remove, or (``dry_run``) count.

        Args:
            proposed: days to be tried out instead of the business's own; for a dry run only.

        Raises:
            NotFound: no such business.
            ValueError: proposed days in a real run.
        """
        if proposed and not dry_run:
            raise ValueError("days that are only proposed cannot be carried out")
        context = TenantContext(tenant_id, actor="job:retention")
        async with self._database.tenant_session(context) as session:
            rules = rules_of((await tenants.get(session, tenant_id)).settings, proposed)
        run = _Run(self._database, self._files, self._erasure, context, self._now(), rules, dry_run)
        counts: Counts = {}
        for name, work in run.parts.items():
            counts[name] = await work()
            progress(name, sum(counts[name].values()))
        report = Report(rules, counts)
        if report.total and not dry_run:
            async with self._database.tenant_session(context) as session:
                await audit.record(
                    session, context, "retention.applied", "tenant", tenant_id, counts=report.counts
                )
        return report


class _Run:
    def __init__(
        self,
        database: Database,
        files: FileStore,
        erasure: Erasure,
        context: TenantContext,
        now: datetime,
        rules: dict[str, Rule],
        dry: bool,
    ) -> None:
        self._database = database
        self._files = files
        self._erasure = erasure
        self._context = context
        self._now = now
        self._rules = rules
        self._dry = dry
        self.parts = {
            "conversation": self._conversations,
            "trace": self._traces,
            "relationship": self._contacts,
            "session": self._ended,
            "audit": self._audit,
            "age": self._aged,
            "export": self._exports,
        }

    def _before(self, key: str) -> datetime | None:
        days = self._rules[key].days
        return None if days is None else self._now - timedelta(days=days)

    async def _conversations(self) -> dict[str, int]:
        before = self._before("conversation")
        if before is None:
            return {"threads": 0}
        if self._dry:
            return {"threads": len(await self._due(before, None))}
        done = 0
        while batch := await self._due(before, BATCH):
            done += await self._erase_threads(batch, before)
        return {"threads": done}

    async def _due(self, before: datetime, limit: int | None) -> list[UUID]:
        async with self._database.tenant_session(self._context) as session:
            return await rows.due_threads(session, before, limit)

    async def _erase_threads(self, batch: list[UUID], before: datetime) -> int:
        context, erasure = self._context, self._erasure
        async with self._database.tenant_session(context) as session:
            scope = Scope(None, tuple(await rows.lock_threads(session, batch, before)))
            await erasure.mark(session, scope)
        async with self._database.tenant_session(context) as session:
            keys = await erasure.destroy_keys(session, context, scope)
        await erasure.forget(keys)
        for name in ("files", "checkpoints", "redis"):
            await erasure.stores[name].erase(context, scope, ())
        # Last: by their tokens the threads count as finished.
        async with self._database.tenant_session(context) as session:
            await erasure.forget_rows(session, scope)
        return len(scope.threads)

    async def _traces(self) -> dict[str, int]:
        before = self._before("trace")
        if before is None:
            return {"turn_steps": 0, "checkpoints": 0}
        context = self._context
        if self._dry:
            # Those threads would be erased before their traces are looked at.
            conversation = self._before("conversation")
            gone = [] if conversation is None else await self._due(conversation, None)
            async with self._database.tenant_session(context) as session:
                steps = await rows.count_steps(session, before, gone)
                idle = set(await rows.idle_threads(session, before)) - set(gone)
                return {
                    "turn_steps": steps,
                    "checkpoints": await count_checkpoints(session, context, list(idle)),
                }
        async with self._database.tenant_session(context) as session:
            slices = await rows.steps_slices(session, before)
            idle_threads = await rows.idle_threads(session, before)
        steps = checkpoints = 0
        for cut in slices:
            async with self._database.platform_session("retention: traces of one business") as session:
                steps += await rows.prune_steps(session, context.tenant_id, cut)
        for at in range(0, len(idle_threads), BATCH):
            async with self._database.tenant_session(context) as session:
                checkpoints += await delete_checkpoints(session, context, idle_threads[at : at + BATCH])
        return {"turn_steps": steps, "checkpoints": checkpoints}

    async def _contacts(self) -> dict[str, int]:
        before = self._before("relationship")
        if before is None:
            return {"contacts": 0}
        async with self._database.tenant_session(self._context) as session:
            if self._dry:
                return {"contacts": await rows.count_idle_contacts(session, before)}
            reason = f"retention: no activity for {self._rules['relationship'].days} days"
            return {
                "contacts": await rows.ask_to_erase_idle_contacts(
                    session, before, self._context.actor, reason
                )
            }

    async def _ended(self) -> dict[str, int]:
        before, tenant_id = self._before("session"), self._context.tenant_id
        if before is None:
            return {}
        async with self._database.identity_session(tenant_id) as session:
            found = await rows.ended(session, tenant_id, PLATFORM_TENANT, before, remove=not self._dry)
        async with self._database.tenant_session(self._context) as session:
            found["idempotency_keys"] = await rows.old_answers(session, before, remove=not self._dry)
        return found

    async def _audit(self) -> dict[str, int]:
        before = self._before("audit")
        if before is None:
            return {"audit_log": 0}
        async with self._database.tenant_session(self._context) as session:
            if self._dry:
                return {"audit_log": await rows.count_audit(session, before)}
            slices = await rows.audit_slices(session, before)
        removed = 0
        for cut in slices:
            async with self._database.platform_session("retention: audit log of one business") as session:
                removed += await rows.prune_audit(session, self._context.tenant_id, cut)
        return {"audit_log": removed}

    async def _aged(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for (table, key), entries in aged().items():
            before = self._before(key)
            of_people = entries[0].subject.kind == "account"
            if before is None or (of_people and self._context.tenant_id != PLATFORM_TENANT):
                continue
            opened = (
                self._database.identity_session()
                if of_people
                else self._database.tenant_session(self._context)
            )
            async with opened as session:
                found[table] = await rows.aged_rows(session, table, entries, before, remove=not self._dry)
        return found

    async def _exports(self) -> dict[str, int]:
        removed = 0
        async with self._database.tenant_session(self._context) as session:
            expired = await privacy.expired_files(session, self._now, 10_000)
        if self._dry:
            return {"files": len(expired)}
        for request_id, file_id in expired:
            await self._files.delete(self._context, file_id)
            async with self._database.tenant_session(self._context) as session:
                await privacy.forget_file(session, request_id)
            removed += 1
        return {"files": removed}
