"""Mails that belong to no conversation: each is sent, once, or given up with a reason."""

from dataclasses import dataclass, field
from email.message import EmailMessage
from uuid import UUID

import pytest

from server.deps import Parts
from server.jobs.mail import BACKOFF, MAX_TRIES, MailJob
from server.mail.transport import PermanentMailError, TemporaryMailError
from storage.repositories import mails
from storage.sql import text

SENDER = "Secretary <no-reply@app.example>"
TO = "ada@people.example"


@dataclass
class Wire:
    """A way out that answers as the test says, and keeps what went."""

    answers: list[Exception] = field(default_factory=list)
    went: list[EmailMessage] = field(default_factory=list)

    async def send(self, message: EmailMessage) -> None:
        if self.answers:
            raise self.answers.pop(0)
        self.went.append(message)


async def add(parts: Parts, key: str, template: str = "reset_password", language: str = "en") -> None:
    values = {"name": "Ada", "link": f"https://app.example/account#{key}", "expires": "2026-11-23 12:00 UTC"}
    async with parts.database.identity_session() as session:
        await mails.add(session, template, language, TO, values, account_id=None, dedupe_key=key)


async def rows(parts: Parts) -> list[tuple[str, int, bool, str | None]]:
    """State, tries, whether the content is still there, and the error of each."""
    async with parts.database.identity_session() as session:
        found = await session.execute(
            text(
                "select state, tries, payload is not null as kept, last_error from mails order by created_at"
            )
        )
        return [(row.state, row.tries, row.kept, row.last_error) for row in found]


async def due(parts: Parts) -> None:
    """Let the time of waiting pass."""
    async with parts.database.identity_session() as session:
        await session.execute(text("update mails set next_at = clock_timestamp(), lease_until = null"))


async def wait_of(parts: Parts) -> float:
    async with parts.database.identity_session() as session:
        return float(
            await session.scalar(text("select extract(epoch from next_at - clock_timestamp()) from mails"))
        )


async def test_what_is_due_is_sent_once_and_forgotten(parts: Parts) -> None:
    await add(parts, "one")
    await add(parts, "one")  # the same occasion
    await add(parts, "two", language="de")
    await add(parts, "three", language="fr")  # a language without templates
    wire = Wire()
    job = MailJob(parts.database, wire, SENDER)
    assert await job.send_due() == 3
    assert await job.send_due() == 0
    assert await rows(parts) == [("sent", 1, False, None)] * 3
    assert [(message["To"], message["From"]) for message in wire.went] == [(TO, SENDER)] * 3
    bodies = [message.get_body(("plain",)).get_content() for message in wire.went]  # type: ignore[union-attr]  # each has one
    assert [key in body for key, body in zip(("one", "two", "three"), bodies, strict=True)] == [True] * 3
    assert wire.went[0]["Subject"] == wire.went[2]["Subject"] != wire.went[1]["Subject"]
    assert len({message["Message-ID"] for message in wire.went}) == 3


async def test_a_server_that_is_away_gets_it_later_and_with_the_same_id(parts: Parts) -> None:
    await add(parts, "one")
    wire = Wire([TemporaryMailError("451 greylisted"), OSError("unreachable"), TimeoutError()])
    job = MailJob(parts.database, wire, SENDER)
    for number in range(3):
        assert await job.send_due() == 0
        assert (await rows(parts))[0][:3] == ("pending", number + 1, True)
        waits = await wait_of(parts)
        assert BACKOFF[number] * 0.8 - 1 < waits <= BACKOFF[number] * 1.2
        assert await job.send_due() == 0  # it waits
        await due(parts)
    assert await job.send_due() == 1
    assert await rows(parts) == [("sent", 4, False, None)]


async def test_what_fails_too_often_or_for_ever_is_given_up(parts: Parts) -> None:
    await add(parts, "often")
    wire = Wire([TemporaryMailError(f"451 for {TO}")] * MAX_TRIES)
    job = MailJob(parts.database, wire, SENDER)
    for _ in range(MAX_TRIES + 2):
        await job.send_due()
        await due(parts)
    await add(parts, "refused")
    wire.answers = [PermanentMailError(f"550 no mailbox {TO}")]
    await job.send_due()
    await add(parts, "unknown", template="no_such_template")
    await job.send_due()
    # Of a server's words only the kind stays: they may name people.
    assert await rows(parts) == [
        ("dead", MAX_TRIES, True, "TemporaryMailError"),
        ("dead", 1, True, "PermanentMailError"),
        ("dead", 1, True, "MailError"),
    ]
    assert wire.went == []


async def test_one_bad_mail_does_not_hold_up_the_others(parts: Parts) -> None:
    await add(parts, "bad", template="no_such_template")
    await add(parts, "good")
    wire = Wire()
    assert await MailJob(parts.database, wire, SENDER).send_due() == 1
    assert [row[0] for row in await rows(parts)] == ["dead", "sent"]


async def test_two_senders_share_and_a_dead_ones_mail_is_taken_over(parts: Parts) -> None:
    await add(parts, "one")
    async with parts.database.identity_session() as session:
        first = await mails.claim(session, lease_seconds=60)
    assert first is not None
    async with parts.database.identity_session() as session:
        assert await mails.claim(session, lease_seconds=60) is None
        await session.execute(text("update mails set lease_until = clock_timestamp() - interval '1 s'"))
        second = await mails.claim(session, lease_seconds=60)
    assert second is not None
    assert (second.id, second.recipient, second.tries) == (first.id, TO, 2)
    async with parts.database.identity_session() as session:
        assert not await mails.mark_sent(session, first)
        await mails.mark_failed(session, first, "late", retry_in=None)
        assert await mails.mark_sent(session, second)
    assert await rows(parts) == [("sent", 2, False, None)]


async def test_a_mail_is_stored_with_what_it_tells_about_or_not_at_all(parts: Parts) -> None:
    async def broken_off() -> None:
        async with parts.database.identity_session() as session:
            await mails.add(session, "reset_password", "en", TO, {}, account_id=None, dedupe_key="x")
            raise RuntimeError("after the mail")

    with pytest.raises(RuntimeError, match="after the mail"):
        await broken_off()
    assert await rows(parts) == []


async def test_what_the_table_shows_is_sealed(parts: Parts) -> None:
    await add(parts, "one")
    async with parts.database.identity_session() as session:
        row = (await session.execute(text("select * from mails"))).one()
    assert isinstance(row.id, UUID)
    assert TO.encode() not in bytes(row.payload)
    assert b"https" not in bytes(row.payload)
