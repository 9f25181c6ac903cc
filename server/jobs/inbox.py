"""Steps 3 and 7 of a message's path: claim a thread's next turn, have it answered, write the answer in one
transaction.

A crash is not a failure: a turn whose worker died three times is run once in quarantine, a process of its
own, before it may be called poison. An exception is a failure: it is tried again later, and given up after a
number of tries.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import structlog

from graphs.runner import AGENT_SCOPES, ConversationRunner
from server.channels.widget.send import room
from server.jobs.outbox import OutboxJob
from server.settings import ServerSettings
from storage.crypto.cipher import LocalSealer, Subject
from storage.errors import LeaseLost, told
from storage.journal import TurnJournal
from storage.placeholders import Vault, VaultEntry
from storage.redis import EventBus
from storage.repositories import claims, inbox, turns
from storage.repositories.claims import Claim
from storage.repositories.directory import TenantInfo
from storage.repositories.inbox import Answered, Reply
from storage.repositories.turns import Step
from storage.sql import Session
from storage.tenancy import Database, TenantContext, is_connection_loss

log = structlog.get_logger(__name__)

MAX_FAILURES = 5
MAX_ATTEMPTS = (
    30  # a bound on bad luck: three crashes lead to the quarantine, which tells an innocent turn from poison
)
PATIENCE_SECONDS = 10.0
CRASHES_BEFORE_QUARANTINE = 3
BACKOFF = (1.0, 4.0, 15.0, 60.0)  # seconds after the first, second, … failure

Quarantine = Callable[[TenantContext, Claim], Awaitable[bool]]


class InboxJob:
    """Answers threads.

    Args:
        quarantine: runs a claimed turn in a process of its own; True where that process survived. None in the
            quarantine itself.
    """

    def __init__(
        self,
        database: Database,
        runner: ConversationRunner,
        outbox: OutboxJob,
        bus: EventBus,
        settings: ServerSettings,
        quarantine: Quarantine | None,
    ) -> None:
        self._database = database
        self._runner = runner
        self._outbox = outbox
        self._bus = bus
        self._settings = settings
        self._quarantine = quarantine

    async def drain(self, tenant_id: UUID, thread_id: UUID) -> None:
        """Answer what is open in a thread, turn by turn, until there is nothing to do or somebody else is at
        it.
        """
        context = TenantContext(
            tenant_id, actor="agent:secretary", request_id=f"job_{uuid4().hex}", scopes=AGENT_SCOPES
        )
        while await self._next_turn(context, thread_id):
            pass

    async def _next_turn(self, context: TenantContext, thread_id: UUID) -> bool:
        async with self._database.tenant_session(context, durable=False) as session:
            claim = await claims.claim(
                session, thread_id, fence=uuid4(), lease_seconds=self._settings.lease_seconds
            )
            if claim is None:
                return False
            turn = await _load(session, claim)
        structlog.contextvars.bind_contextvars(tenant_id=str(context.tenant_id), turn_id=str(claim.turn_id))
        async with _kept(self._keep_lease(context, claim)):
            try:
                if claim.attempts > MAX_ATTEMPTS:
                    await self._fail(context, claim, f"given up after {MAX_ATTEMPTS} attempts", final=True)
                elif claim.crashes >= CRASHES_BEFORE_QUARANTINE and self._quarantine is not None:
                    await self._isolate(context, claim, self._quarantine)
                else:
                    await self._work(context, turn)
            except LeaseLost:
                log.warning("lease_lost")
                return False
        return True

    async def resume(self, tenant_id: UUID, thread_id: UUID, fence: UUID) -> None:
        """In the quarantine: run the turn that the starting worker has claimed under this fence.

        Raises:
            LeaseLost: the worker does not hold the thread any more.
        """
        context = TenantContext(
            tenant_id, actor="agent:secretary", request_id=f"job_{uuid4().hex}", scopes=AGENT_SCOPES
        )
        async with self._database.tenant_session(context) as session:
            turn = await _load(session, await claims.claimed(session, thread_id, fence))
        await self._work(context, turn)

    async def _work(self, context: TenantContext, turn: "_Turn") -> None:
        """Run a claimed turn to its end.

        Raises:
            LeaseLost: somebody else works this thread now.
        """
        claim = turn.claim
        try:
            async with asyncio.timeout(self._settings.turn_timeout):
                answered = await self._answer(context, turn)
        except LeaseLost:
            raise
        except asyncio.CancelledError:
            # The process is told to stop. Shielded: the cancellation must not hit the transaction that undoes
            # the claim.
            with suppress(Exception):
                async with asyncio.timeout(3):
                    await asyncio.shield(self._return_turn(context, claim))
            raise
        except Exception as error:
            if is_connection_loss(error):
                log.warning("turn_interrupted", error=type(error).__name__)
                await self._give_back(context, claim)
                raise LeaseLost from error
            log.exception("turn_failed", failures=claim.failures + 1)
            await self._fail(
                context,
                claim,
                told(error),
                final=claim.failures + 1 >= MAX_FAILURES,
            )
            return
        if answered is not None:
            await self._outbox.send_now(context, claim, answered)

    async def _answer(self, context: TenantContext, turn: "_Turn") -> Answered | None:
        claim, vault = turn.claim, Vault(turn.vault)
        journal = TurnJournal(
            self._database,
            context,
            turn_id=claim.turn_id,
            thread_id=claim.thread_id,
            fence=claim.fence,
            vault=vault,
            steps=turn.steps,
        )
        channel = room(context, claim.thread_id)
        await self._bus.publish(channel, {"t": "typing", "on": True})

        async def draft(text: str) -> None:
            await self._bus.publish(channel, {"t": "draft", "id": str(claim.turn_id), "text": text})

        reply: Reply = await self._runner.run(context, turn.info, claim, journal, vault, turn.sealer, draft)
        message_id = journal.new_id("reply")
        async with self._database.tenant_session(context) as session:
            await journal.flush(session)
            return await inbox.answer(
                session,
                claim,
                reply,
                message_id=message_id,
                outbox_lease_seconds=self._settings.lease_seconds,
            )

    async def _keep_lease(self, context: TenantContext, claim: Claim) -> None:
        """Extend the lease while the turn is in work. Losing it is noticed by whoever writes next."""
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            try:
                async with self._database.tenant_session(context, durable=False) as session:
                    if not await claims.extend_lease(
                        session, claim.thread_id, claim.fence, self._settings.lease_seconds
                    ):
                        return
            except Exception as error:
                log.warning("heartbeat_failed", error=type(error).__name__)

    async def _isolate(self, context: TenantContext, claim: Claim, quarantine: Quarantine) -> None:
        log.warning("quarantine", crashes=claim.crashes)
        if not await quarantine(context, claim):
            await self._fail(
                context, claim, f"its worker died {claim.crashes} times, and the quarantine too", final=True
            )

    async def _fail(self, context: TenantContext, claim: Claim, error: str, *, final: bool) -> None:
        delay = BACKOFF[min(claim.failures, len(BACKOFF) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311  # jitter, no secret
        async with self._database.tenant_session(context) as session:
            await inbox.fail(session, claim, error, retry_in=None if final else timedelta(seconds=delay))

    async def _give_back(self, context: TenantContext, claim: Claim) -> None:
        """The database went away: undo the claim as soon as it is back, so that its restart is nobody's crash.

        Where that takes too long the lease ends by itself, and the attempt counts.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    try:
                        return await self._return_turn(context, claim)
                    except Exception as error:
                        if not is_connection_loss(error):
                            raise
                    await asyncio.sleep(0.2)

    async def _return_turn(self, context: TenantContext, claim: Claim) -> None:
        async with self._database.tenant_session(context) as session:
            await claims.return_turn(session, claim)


@dataclass(frozen=True)
class _Turn:
    """A claimed turn with what it needs from the database, read in the transaction of the claim."""

    claim: Claim
    info: TenantInfo
    vault: list[VaultEntry]
    steps: list[Step]
    sealer: LocalSealer


async def _load(session: Session, claim: Claim) -> _Turn:
    info, vault = await turns.load_surroundings(session, claim.thread_id)
    steps = await turns.load_steps(session, claim.turn_id) if claim.begun else []
    return _Turn(claim, info, vault, steps, await session.cipher.local(Subject.thread(claim.thread_id)))


class _kept:  # noqa: N801  # reads as a verb where it is used
    """Runs a coroutine beside a block, and ends it with the block."""

    def __init__(self, beside: Awaitable[None]) -> None:
        self._beside = asyncio.ensure_future(beside)

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_exc: object) -> None:
        self._beside.cancel()
        with suppress(asyncio.CancelledError):
            await self._beside
