"""Step 8 of a message's path (a): send what is in the outbox, in order for each thread; back off; give up
with a call for a person.
"""

import random
from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

import structlog

from server.channels.senders import Sender
from storage.errors import told
from storage.repositories import outbox
from storage.repositories.claims import Claim
from storage.repositories.inbox import Answered
from storage.repositories.outbox import Delivery
from storage.tenancy import Database, TenantContext, is_connection_loss

log = structlog.get_logger(__name__)

MAX_TRIES = 10
LEASE_SECONDS = 10.0


class OutboxJob:
    """Sends.

    Args:
        senders: by kind of channel.
    """

    def __init__(self, database: Database, senders: Mapping[str, Sender]) -> None:
        self._database = database
        self._senders = senders

    async def drain(self, tenant_id: UUID, thread_id: UUID) -> None:
        """Send what a thread has to send, oldest first, until nothing is due."""
        context = TenantContext(tenant_id, actor="job:outbox")
        while True:
            async with self._database.tenant_session(context) as session:
                delivery = await outbox.claim(session, thread_id, lease_seconds=LEASE_SECONDS)
            if delivery is None or not await self._send(context, delivery):
                return

    async def send_now(self, context: TenantContext, claim: Claim, answered: Answered) -> None:
        """Send the row that a turn's last transaction has left leased to us. Where an older one goes first,
        the sweep sees to both.
        """
        if answered.outbox_token is not None:
            delivery = Delivery(
                id=answered.outbox_id,
                token=answered.outbox_token,
                thread_id=claim.thread_id,
                channel_id=claim.channel_id,
                channel_kind=claim.channel_kind,
                message_id=answered.message_id,
                dedupe_key=answered.dedupe_key,
                tries=1,
            )
            await self._send(context, delivery)

    async def _send(self, context: TenantContext, delivery: Delivery) -> bool:
        """Send one; True where the thread may go on."""
        try:
            sender = self._senders[delivery.channel_kind]
            provider_id = await sender.send(context, delivery)
        except Exception as error:
            if is_connection_loss(error):
                raise
            final = delivery.tries >= MAX_TRIES
            log.warning("send_failed", tries=delivery.tries, final=final, error=type(error).__name__)
            delay = timedelta(seconds=min(2.0**delivery.tries, 3600.0) * random.uniform(0.8, 1.2))  # noqa: S311  # jitter, no secret
            async with self._database.tenant_session(context) as session:
                await outbox.mark_failed(
                    session,
                    delivery,
                    told(error),
                    retry_in=None if final else delay,
                )
            return final
        async with self._database.tenant_session(context, durable=not sender.repeatable) as session:
            return await outbox.mark_sent(session, delivery.id, delivery.token, provider_id)
