"""Sends the mails that belong to no conversation: links to verify an address, to reset a password, invitations, notices."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import structlog

from server.mail.compose import LANGUAGES, TEMPLATES, MailError, compose, message
from server.mail.transport import PermanentMailError, TemporaryMailError, Transport
from storage.errors import told
from storage.repositories import mails
from storage.repositories.mails import Mail
from storage.tenancy import Database, is_connection_loss

log = structlog.get_logger(__name__)

LEASE_SECONDS = 90.0  # longer than the transport's own limit
MAX_TRIES = 10
BACKOFF = (5.0, 30.0, 120.0, 600.0, 3600.0)


class MailJob:
    """Sends what is due.

    Args:
        sender: the From address, with or without a name.
    """

    def __init__(self, database: Database, transport: Transport, sender: str) -> None:
        self._database = database
        self._transport = transport
        self._sender = sender

    async def run(self, every: float) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.send_due()
            except Exception as error:
                if not is_connection_loss(error):
                    log.exception("mail_failed")
            await asyncio.sleep(every)

    async def send_due(self) -> int:
        """Send one after the other until nothing is due; number of mails sent."""
        sent = 0
        while True:
            async with self._database.identity_session() as session:
                mail = await mails.claim(session, lease_seconds=LEASE_SECONDS)
            if mail is None:
                return sent
            sent += await self._send(mail)

    async def _send(self, mail: Mail) -> bool:
        try:
            await self._transport.send(self._message(mail))
        except (TemporaryMailError, OSError, TimeoutError) as error:
            await self._failed(mail, error, final=mail.tries >= MAX_TRIES)
            return False
        except (PermanentMailError, MailError) as error:
            await self._failed(mail, error, final=True)
            return False
        # Between the server's yes and this line a crash sends the mail twice, with the same Message-ID.
        async with self._database.identity_session() as session:
            return await mails.mark_sent(session, mail)

    def _message(self, mail: Mail) -> EmailMessage:
        template = next((name for name in TEMPLATES if name == mail.template), None)
        if template is None:
            raise MailError(f"no template is named {mail.template!r}")
        language = mail.language if mail.language in LANGUAGES else LANGUAGES[0]
        made = compose(template, language, {key: str(value) for key, value in mail.values.items()})
        return message(
            made, sender=self._sender, recipient=mail.recipient, row_id=mail.id, date=datetime.now(UTC)
        )

    async def _failed(self, mail: Mail, error: Exception, *, final: bool) -> None:
        delay = BACKOFF[min(mail.tries - 1, len(BACKOFF) - 1)] * random.uniform(0.8, 1.2)  # noqa: S311  # jitter, no secret
        log.warning(
            "mail_not_sent", mail=str(mail.id), error=type(error).__name__, final=final, tries=mail.tries
        )
        async with self._database.identity_session() as session:
            await mails.mark_failed(
                session, mail, told(error), retry_in=None if final else timedelta(seconds=delay)
            )
