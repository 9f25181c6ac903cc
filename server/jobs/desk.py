"""A worker's desk: what may be asked of it, by a wake-up through arq or by its own sweep. Both ask the same
way.
"""

from datetime import datetime
from functools import partial
from uuid import UUID

from server.jobs.inbox import InboxJob
from server.jobs.ingest import IngestJob
from server.jobs.outbox import OutboxJob
from server.jobs.workforce import Workforce


class Desk:
    """Takes requests and returns at once; the work goes on in the workforce.

    Documents have a workforce of their own: a long one does not keep customers waiting.
    """

    def __init__(self, inbox: InboxJob, outbox: OutboxJob, ingest: IngestJob, *, max_turns: int) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._ingest = ingest
        self._turns = Workforce(max_turns)
        self._sends = Workforce(max_turns)
        self._documents = Workforce(1)

    def drain_inbox(self, tenant_id: UUID, thread_id: UUID, asked_at: datetime | None = None) -> None:
        """Answer a thread. ``asked_at`` (UTC): when the wake-up was sent; what was begun later has seen its message."""
        key = ("inbox", tenant_id, thread_id)
        if asked_at is None or not self._turns.begun_since(key, asked_at):
            self._turns.ask(key, partial(self._inbox.drain, tenant_id, thread_id))

    def drain_outbox(self, tenant_id: UUID, thread_id: UUID) -> None:
        self._sends.ask(("outbox", tenant_id, thread_id), partial(self._outbox.drain, tenant_id, thread_id))

    def ingest_document(self, tenant_id: UUID, document_id: UUID) -> None:
        self._documents.ask(
            ("ingest", tenant_id, document_id), partial(self._ingest.process, tenant_id, document_id)
        )

    async def aclose(self, grace: float) -> None:
        """Let what is in work finish for at most ``grace`` seconds."""
        for workforce in (self._turns, self._sends, self._documents):
            await workforce.aclose(grace)
