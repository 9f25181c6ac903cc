"""The worker process: wake-ups through arq, its own sweep, and the desk at which both arrive.

arq only wakes. Its jobs put a request on the desk and return, so neither its time-outs nor the end of a Redis
can break off a turn, and its loop is simply started anew when Redis went away.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from uuid import UUID

import structlog
import uvloop
from arq.worker import Worker, func
from redis.exceptions import RedisError

from graphs.checkpoints import make_checkpoint_pool
from graphs.context import Mind
from graphs.runner import ConversationRunner
from server.channels.senders import senders
from server.deps import Parts, keyring_of, opened_parts, require_keys
from server.jobs.anchors import anchor_all
from server.jobs.desk import Desk
from server.jobs.housekeeping import Chore, keep_house
from server.jobs.inbox import InboxJob, Quarantine
from server.jobs.ingest import IngestJob
from server.jobs.keys import KeyRotation
from server.jobs.mail import MailJob
from server.jobs.outbox import OutboxJob
from server.jobs.privacy import forget_keys, opened_privacy
from server.jobs.quarantine import run_in_quarantine
from server.jobs.sweep import sweep_forever
from server.mail.settings import MailSettings
from server.mail.transport import make_transport
from server.mind import build_mind
from storage.queue import QUEUE_NAME, deserialize_job, make_arq, serialize_job, take_now
from storage.redis import end_tasks

log = structlog.get_logger(__name__)

POLL_DELAY = 0.02
HOUR = 3600.0
GRACE_SECONDS = 25.0


@asynccontextmanager
async def opened_inbox(
    parts: Parts, mind: Mind, quarantine: Quarantine | None
) -> AsyncIterator[tuple[InboxJob, OutboxJob]]:
    """What answers threads, with its own connections for checkpoints."""
    pool = make_checkpoint_pool(parts.storage.role_urls().app, size=parts.settings.max_turns + 2)
    await pool.open(wait=False)
    outbox = OutboxJob(parts.database, senders(parts.bus))
    try:
        yield (
            InboxJob(
                parts.database, ConversationRunner(mind, pool), outbox, parts.bus, parts.settings, quarantine
            ),
            outbox,
        )
    finally:
        await mind.gateway.aclose()
        await pool.close()


async def run_worker() -> None:
    """Work until SIGTERM or SIGINT; then finish what is in work, for at most GRACE_SECONDS."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    async with (
        opened_parts("worker") as parts,
        opened_inbox(parts, build_mind(parts), run_in_quarantine) as (inbox, outbox),
        opened_privacy(parts.database, parts.files, parts.bus, parts.storage) as privacy,
    ):
        await require_keys(parts)
        await forget_keys(parts.bus, keyring_of(parts))
        desk = Desk(inbox, outbox, IngestJob(parts.intake), max_turns=parts.settings.max_turns)
        await parts.resources.embedder.embed_query(
            "warm up"
        )  # the first customer does not wait for the model to load
        beside = [
            asyncio.create_task(
                sweep_forever(parts.database, desk, parts.settings.sweep_seconds), name="sweep"
            ),
            asyncio.create_task(privacy.run(parts.settings.sweep_seconds), name="privacy requests"),
            asyncio.create_task(mail_job(parts).run(parts.settings.sweep_seconds), name="mails"),
            asyncio.create_task(
                keep_house([*chores(parts), Chore("retention", HOUR, privacy.keep_retention)]),
                name="housekeeping",
            ),
            asyncio.create_task(listen(parts.storage.redis_url or "", desk), name="wake-ups"),
            asyncio.create_task(
                take_now(parts.storage.redis_url or "", desk.drain_inbox), name="fresh messages"
            ),
        ]
        log.info("worker_ready")
        if parts.settings.ready_file is not None:
            parts.settings.ready_file.touch()
        await stop.wait()
        log.info("worker_stops")
        await end_tasks(beside)
        await desk.aclose(GRACE_SECONDS)


def mail_job(parts: Parts) -> MailJob:
    """Sends mails as MAIL_URL says; without one they become files in the data folder.

    Raises:
        ConfigurationError: MAIL_URL is no address of a mail server, or production without one.
    """
    settings = MailSettings()
    url = (
        settings.mail_url.get_secret_value()
        if settings.mail_url
        else f"file:{parts.storage.data_dir / 'mail'}"
    )
    transport = make_transport(url, production=parts.settings.env == "production")
    return MailJob(parts.database, transport, settings.mail_from)


def chores(parts: Parts) -> list[Chore]:
    """What this worker does beside its work."""
    keys = KeyRotation(parts.database, keyring_of(parts), parts.files)
    return [
        Chore("audit anchors", HOUR, partial(anchor_all, parts.database, parts.storage.data_dir)),
        Chore("keys of finished rotations", HOUR, keys.finish_all),
        Chore("left-over temporary files", HOUR, partial(parts.files.clear_temporary, 86_400)),
    ]


async def listen(redis_url: str, desk: Desk) -> None:
    """Take wake-ups from arq; start it anew when Redis went away (arq's worker ends then)."""

    async def drain_inbox(context: dict[Any, Any], tenant_id: str, thread_id: str) -> None:
        desk.drain_inbox(UUID(tenant_id), UUID(thread_id), asked_at=context["enqueue_time"])

    async def drain_outbox(_context: dict[Any, Any], tenant_id: str, thread_id: str) -> None:
        desk.drain_outbox(UUID(tenant_id), UUID(thread_id))

    async def ingest_document(_context: dict[Any, Any], tenant_id: str, document_id: str) -> None:
        desk.ingest_document(UUID(tenant_id), UUID(document_id))

    jobs: dict[str, Any] = {
        "drain_inbox": drain_inbox,
        "drain_outbox": drain_outbox,
        "ingest_document": ingest_document,
    }
    while True:
        redis = make_arq(redis_url)
        worker = Worker(
            functions=[func(job, name=name, max_tries=1, keep_result=0) for name, job in jobs.items()],
            queue_name=QUEUE_NAME,
            redis_pool=redis,
            handle_signals=False,
            poll_delay=POLL_DELAY,
            keep_result=0,
            max_tries=1,
            max_jobs=100,
            job_timeout=10,
            queue_read_limit=1000,  # counts jobs in progress too: too small a limit starves new ones
            health_check_interval=15,
            job_serializer=serialize_job,
            job_deserializer=deserialize_job,
            log_results=False,
        )
        try:
            await worker.async_run()
        except (RedisError, OSError) as error:
            log.warning("wake_ups_interrupted", error=type(error).__name__)
        finally:
            with suppress(RedisError, OSError):
                await worker.close()
        await asyncio.sleep(0.5)


def main() -> None:
    """Entry of ``python -m server worker``."""
    uvloop.run(run_worker())
    sys.exit(0)
