"""Mails to be sent that belong to no conversation: the same promises as the outbox. For identity sessions."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from storage.crypto.cipher import Subject
from storage.ids import new_id
from storage.sql import Session, text
from storage.tenancy import rowcount

_COLUMN = "mails.payload"


@dataclass(frozen=True)
class Mail:
    """A claimed mail. ``values`` fill the template; ``recipient`` is an address."""

    id: UUID
    token: UUID
    template: str
    language: str
    recipient: str
    values: dict[str, Any]
    tries: int


async def add(
    session: Session,
    template: str,
    language: str,
    recipient: str,
    values: Mapping[str, Any],
    *,
    account_id: UUID | None,
    dedupe_key: str,
) -> None:
    """Store a mail in the transaction of what it tells about; a second one with the same key is not stored."""
    mail_id = new_id()
    payload = json.dumps({"to": recipient, "values": dict(values)}, default=str, ensure_ascii=False)
    await session.execute(
        text("""
        insert into mails (id, account_id, template, language, payload, dedupe_key)
        values (:id, :account, :template, :language, :payload, :key) on conflict (dedupe_key) do nothing
        """),
        {
            "id": mail_id,
            "account": account_id,
            "template": template,
            "language": language,
            "payload": await session.cipher.seal(_COLUMN, mail_id, Subject.tenant(), payload),
            "key": dedupe_key,
        },
    )


async def claim(session: Session, *, lease_seconds: float) -> Mail | None:
    """The oldest mail that is due and that nobody is sending."""
    row = (
        await session.execute(
            text("""
            update mails set lease_token = :token, tries = tries + 1, lease_until = clock_timestamp() + make_interval(secs => :lease)
             where id = (select id from mails where state = 'pending' and next_at <= clock_timestamp()
                            and (lease_until is null or lease_until < clock_timestamp())
                          order by next_at limit 1 for update skip locked)
            returning id, template, language, payload, tries
            """),
            {"token": (token := new_id()), "lease": lease_seconds},
        )
    ).one_or_none()
    if row is None:
        return None
    payload = json.loads(await session.cipher.open(_COLUMN, row.id, row.payload) or "{}")
    return Mail(row.id, token, row.template, row.language, payload["to"], payload["values"], row.tries)


async def mark_sent(session: Session, mail: Mail) -> bool:
    """Forget what it said; False where another sender has taken it over."""
    result = await session.execute(
        text("""
        update mails set state = 'sent', sent_at = clock_timestamp(), payload = null, lease_until = null, last_error = null
         where id = :id and lease_token = :token and state = 'pending'
        """),
        {"id": mail.id, "token": mail.token},
    )
    return rowcount(result) == 1


async def mark_failed(session: Session, mail: Mail, error: str, *, retry_in: timedelta | None) -> None:
    """Back off, or (None) give up."""
    await session.execute(
        text("""
        update mails set state = case when :dead then 'dead' else state end, last_error = :error, lease_until = null,
               next_at = clock_timestamp() + :delay where id = :id and lease_token = :token and state = 'pending'
        """),
        {
            "id": mail.id,
            "token": mail.token,
            "error": error,
            "dead": retry_in is None,
            "delay": retry_in or timedelta(0),
        },
    )
