"""The turn journal: what makes a re-run safe and cheap.

Each answer of a model, each result of a tool, each clock reading and each new id of a turn is a
``turn_steps`` row before anything acts on it. A turn that died is run again from its inbox row; what is in
the journal is served from it, so the model's decision is the same decision, a tool that acted is not run
twice, and nothing is paid twice.

When is a row durable? Pure steps (an answer, a clock reading) commit without waiting for the disk. The effect
of a tool and the reply commit durably, and PostgreSQL's log is sequential: a durable commit flushes all
commits before it. So no effect can survive a crash of the database without the decisions that led to it, and
a decision that was lost had no effect (ARCHITECTURE.md, D-006).
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import IntegrityError

from storage.errors import LeaseLost
from storage.ids import new_id
from storage.placeholders import Vault
from storage.repositories import turns
from storage.repositories.turns import Step
from storage.sql import Session
from storage.tenancy import Database, TenantContext

log = structlog.get_logger(__name__)


class JournalDiverged(Exception):
    """The code asks for another kind of step than the journal holds here: it was changed in mid-turn."""


@dataclass(frozen=True)
class Recorded:
    """A step's result: a JSON object, and what it cost if a model made it."""

    response: dict[str, Any]
    model: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    replayed: bool = False


class TurnJournal:
    """The journal of one turn, under one lease.

    Args:
        vault: the thread's placeholders. New ones commit together with the first step that was taken on them, so a
            step never names a placeholder that is not there, and a re-run without that step may number anew.
        steps: what an earlier run of this turn has written; served in order before anything new is done.
        clock: reads the time; only called for steps that the journal does not hold.
    """

    def __init__(
        self,
        database: Database,
        context: TenantContext,
        *,
        turn_id: UUID,
        thread_id: UUID,
        fence: UUID,
        vault: Vault | None = None,
        steps: Sequence[Step] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._context = context
        self.turn_id = turn_id
        self.thread_id = thread_id
        self._fence = fence
        self._vault = vault
        self._stored = {step.ordinal: step for step in steps}
        self._clock = clock
        self._next = 0
        self._buffer: list[Step] = []
        self.recorded: list[Recorded] = []

    def now(self) -> datetime:
        """The time, in UTC, as this turn saw it first."""
        value = self._pure("clock", "now", lambda: {"at": self._clock().isoformat()})["at"]
        return datetime.fromisoformat(value)

    def new_id(self, name: str) -> UUID:
        """A new UUIDv7 that a re-run of the turn gets again."""
        return UUID(self._pure("id", name, lambda: {"id": str(new_id())})["id"])

    def note(self, name: str, response: dict[str, Any]) -> dict[str, Any]:
        """Write down a decision that code made (a verdict, a route by rule), for the trace."""
        return self._pure("note", name, lambda: response)

    async def model(
        self, name: str, request: dict[str, Any], produce: Callable[[], Awaitable[Recorded]]
    ) -> Recorded:
        """A model's answer: from the journal, else produced and stored before it is returned.

        Raises:
            LeaseLost: somebody else works this thread now.
        """
        stored = self._take("model", name, request)
        if stored is not None:
            return self._served(stored)
        started = self._clock()
        recorded = await produce()
        self._push("model", name, request, recorded, started)
        await self.flush()
        self.recorded.append(recorded)
        return recorded

    async def effect(
        self, name: str, request: dict[str, Any], act: Callable[[Session], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """Something that changes the database: it and its journal row commit together, so a repeat returns
        the stored result.

        Ids that ``act`` makes need no rows of their own: they are in the result, and where the transaction
        rolls back nobody saw them.

        Raises:
            LeaseLost: somebody else works this thread now; nothing was changed.
            Exception: whatever ``act`` raised; nothing was changed and nothing journalled.
        """
        stored = self._take("tool", name, request)
        if stored is not None:
            return self._served(stored).response
        started, place = self._clock(), self._next
        try:
            async with self._database.tenant_session(self._context) as session:
                response = await act(session)
                self._push("tool", name, request, Recorded(response), started)
                await self._write(session)
        except BaseException:
            # The step was not taken: its place is free again for what became of it (a refusal, say).
            self._next = place
            self._buffer = [step for step in self._buffer if step.ordinal < place]
            raise
        self._written()
        return response

    async def observe(
        self, name: str, request: dict[str, Any], look: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """A tool's result that changed nothing (a search, a refusal): from the journal, else produced and
        stored.

        Raises:
            LeaseLost: somebody else works this thread now.
        """
        stored = self._take("tool", name, request)
        if stored is not None:
            return self._served(stored).response
        started = self._clock()
        response = await look()
        self._push("tool", name, request, Recorded(response), started)
        await self.flush()
        return response

    @property
    def place(self) -> int:
        """Ordinal of the step that comes next."""
        return self._next

    async def flush(self, session: Session | None = None) -> None:
        """Write what is buffered (clock readings, ids, notes): in the caller's transaction, or in one of its
        own.

        The caller's transaction is the turn's last: the buffer is not used again after it.
        """
        if not self._buffer:
            return
        if session is not None:
            await self._write(session)
            return
        async with self._database.tenant_session(self._context, durable=False) as own:
            await self._write(own)
        self._written()

    def _written(self) -> None:
        """What was pending is committed."""
        self._buffer.clear()
        if self._vault is not None:
            self._vault.mark_stored()

    async def _write(self, session: Session) -> None:
        if self._vault is not None and self._vault.fresh:
            await turns.add_vault(session, self.thread_id, self._vault.fresh)
        try:
            written = await turns.append_steps(
                session, turn_id=self.turn_id, thread_id=self.thread_id, fence=self._fence, steps=self._buffer
            )
        except IntegrityError as error:  # the place is taken: another worker re-runs this turn
            raise LeaseLost from error
        if not written:
            raise LeaseLost

    def _pure(self, kind: str, name: str, produce: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        stored = self._take(kind, name, {})
        if stored is not None:
            return self._served(stored).response
        response = produce()
        self._push(kind, name, {}, Recorded(response), self._clock())
        return response

    def _take(self, kind: str, name: str, request: dict[str, Any]) -> Step | None:
        stored = self._stored.get(self._next)
        if stored is None:
            return None
        if (stored.kind, stored.name) != (kind, name):
            raise JournalDiverged(
                f"turn {self.turn_id}, step {self._next}: it holds {stored.kind} {stored.name!r}, the code asks for {kind} {name!r}"
            )
        if stored.request_hash != _hash(request):
            # An edited prompt, say. What was decided stays decided; the trace shows that the question was
            # another one.
            log.warning("journal_request_changed", turn_id=str(self.turn_id), ordinal=self._next, name=name)
        self._next += 1
        return stored

    def _served(self, step: Step) -> Recorded:
        recorded = Recorded(step.response, step.model, step.tokens_in, step.tokens_out, replayed=True)
        if step.kind == "model":
            self.recorded.append(recorded)
        return recorded

    def _push(
        self, kind: str, name: str, request: dict[str, Any], recorded: Recorded, started: datetime
    ) -> None:
        step = Step(
            ordinal=self._next,
            kind=kind,
            name=name,
            request_hash=_hash(request),
            request=request,
            response=recorded.response,
            started_at=started,
            model=recorded.model,
            tokens_in=recorded.tokens_in,
            tokens_out=recorded.tokens_out,
        )
        self._buffer.append(step)
        self._next += 1


def _hash(request: dict[str, Any]) -> str:
    canonical = json.dumps(request, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
