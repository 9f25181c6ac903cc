"""Finds what a lost wake-up, a killed worker or an expired lease has left behind, and has it done. Needs
PostgreSQL only.
"""

import asyncio

import structlog

from server.jobs.desk import Desk
from storage.repositories import inbox, knowledge, outbox
from storage.tenancy import Database, is_connection_loss

log = structlog.get_logger(__name__)

LIMIT = 200
WAKE_GRACE = 0.5  # seconds that the ordinary wake-up has first


async def sweep_forever(database: Database, desk: Desk, every: float) -> None:
    """Look for left work again and again, until cancelled."""
    while True:
        try:
            await sweep_once(database, desk)
        except Exception as error:
            if not is_connection_loss(error):
                log.exception("sweep_failed")
        await asyncio.sleep(every)


async def sweep_once(database: Database, desk: Desk) -> int:
    """One look; returns how much was found."""
    async with database.platform_session("sweep: whose work is left over is not known before") as session:
        threads = await inbox.due_threads(session, older_than=WAKE_GRACE, limit=LIMIT)
        unsent = await outbox.due_threads(session, limit=LIMIT)
        documents = await knowledge.due_documents(session, limit=20)
    for tenant_id, thread_id in threads:
        desk.drain_inbox(tenant_id, thread_id)
    for tenant_id, thread_id in unsent:
        desk.drain_outbox(tenant_id, thread_id)
    for tenant_id, document_id in documents:
        desk.ingest_document(tenant_id, document_id)
    return len(threads) + len(unsent) + len(documents)
