"""What a chaos run has to answer for: each accepted message once, each answered once, in order, paid once."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from server.deps import Parts
from storage.repositories import invariants
from storage.repositories.claims import TEXT
from tests.support.world import TestTenant, journal_of

_REPLY = re.compile(r"Re (\d+) of (\d+), answer \d+")
_QUESTION = re.compile(r"message (\d+) of thread (\d+)")


@dataclass
class Verdict:
    """Numbers, and what is wrong; no problems is the only good answer."""

    messages: int = 0
    replies: int = 0
    lost: int = 0
    extra: int = 0
    out_of_order: int = 0
    dead: int = 0
    reduced: int = 0
    usage: int = 0
    leads: int = 0
    leads_asked: int = 0
    unsent: int = 0
    sent_again: int = 0
    broken: dict[str, int] = field(default_factory=dict)
    rested: bool = True
    retried_turns: int = 0
    most_attempts: int = 0
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        named = {
            "messages lost": self.lost,
            "messages or replies extra": self.extra,
            "out of order": self.out_of_order,
            "dead letters": self.dead,
            "usage rows more or less than replies": abs(self.usage - self.replies),
            "leads more or less than the journal asks for": abs(self.leads - self.leads_asked),
            "unsent": self.unsent,
            "did not come to rest": int(not self.rested),
            **{f"invariant {name}": number for name, number in self.broken.items()},
        }
        return [f"{name}: {number}" for name, number in named.items() if number]

    def counts(self) -> Iterator[tuple[str, float, str, int]]:
        """(name, value, unit, n) for the figures."""
        for name, value, unit in (
            ("messages lost", self.lost, "messages"),
            ("messages or replies extra", self.extra, "messages"),
            ("out of order", self.out_of_order, "messages"),
            ("dead letters", self.dead, "messages"),
        ):
            yield name, value, unit, self.messages
        yield "usage rows", self.usage, "rows", self.replies
        yield "leads", self.leads, "rows", self.leads_asked
        yield "reduced answers", self.reduced, "replies", self.replies
        yield "replies unsent", self.unsent, "replies", self.replies
        yield "replies sent more than once", self.sent_again, "replies", self.replies
        yield "violated invariants", len(self.broken), "invariants", len(invariants.INVARIANTS)
        yield "turns taken up more than once", self.retried_turns, "turns", self.replies
        yield "most attempts of a turn", self.most_attempts, "attempts", self.replies


async def open_work(parts: Parts, tenant: TestTenant) -> int:
    """Messages unanswered, replies unsent, threads leased."""
    async with parts.database.tenant_session(tenant.context) as session:
        return int(
            await session.scalar(
                text("""
                select (select count(*) from inbox_messages where state = 'pending')
                     + (select count(*) from outbox where state = 'pending')
                     + (select count(*) from threads where lease_until > clock_timestamp())
                """)
            )
            or 0
        )


async def judge(
    parts: Parts, tenant: TestTenant, accepted: Mapping[tuple[UUID, int], UUID], *, rested: bool
) -> Verdict:
    """Compare what the database holds with what was accepted: (thread, number) of each message, and its id."""
    async with parts.database.platform_session("chaos: invariants are about all tenants") as session:
        found = await invariants.violations(session)
    async with parts.database.tenant_session(tenant.context) as session:
        rows = (await session.execute(text("select * from inbox_messages order by thread_id, seq"))).all()
        outbox = (await session.execute(text("select state, tries from outbox"))).all()
        counted = (
            await session.execute(
                text("""
                select (select count(*) from leads) as leads,
                       (select count(*) from usage_events where kind = 'reply') as usage
                """)
            )
        ).one()
        texts = dict(
            zip(
                (row.id for row in rows),
                await session.cipher.open_many(TEXT, [(row.id, row.text) for row in rows]),
                strict=True,
            )
        )
        # A decision is journalled once, so each stands for one lead.
        asked = sum(
            call["name"] == "crm_create_lead"
            for step in await journal_of(session)
            if step.kind == "model"
            for call in step.response.get("tool_calls", ())
        )
    inbound = [row for row in rows if row.direction == "in"]
    replies = [row for row in rows if row.direction == "out"]
    stored = Counter(row.id for row in inbound)
    verdict = Verdict(
        messages=len(inbound),
        replies=len(replies),
        dead=sum(row.state == "dead" for row in inbound),
        reduced=sum(row.reduced for row in replies),
        usage=counted.usage,
        leads=counted.leads,
        leads_asked=asked,
        unsent=sum(row.state != "sent" for row in outbox),
        sent_again=sum(row.tries > 1 for row in outbox),
        broken={name: len(items) for name, items in found.items() if items},
        rested=rested,
        retried_turns=len({row.turn_id for row in inbound if row.attempts > 1}),
        most_attempts=max((row.attempts for row in inbound), default=0),
        failures=dict(Counter(str(row.last_error) for row in inbound if row.failures or row.state == "dead")),
    )
    answered = {row.id for row in inbound if row.state == "answered"}
    verdict.lost = sum(message not in answered for message in accepted.values()) - verdict.dead
    verdict.extra = (
        sum((stored - Counter(accepted.values())).values())
        + len(replies)
        - len({row.turn_id for row in inbound if row.id in answered})
    )
    verdict.out_of_order = _out_of_order(inbound, replies, texts)
    return verdict


def _out_of_order(inbound: list[Any], replies: list[Any], texts: dict[UUID, str | None]) -> int:
    """Messages that stand before an earlier one, and replies that do not name the last message of their turn
    or stand before the reply to an earlier turn.
    """
    wrong = 0
    last: dict[UUID, int] = defaultdict(int)
    newest: dict[UUID, tuple[str, str]] = {}
    first_seq: dict[UUID, int] = {}
    for row in inbound:
        number, thread = _QUESTION.findall(texts[row.id] or "")[-1]
        wrong += int(number) <= last[row.thread_id]
        last[row.thread_id] = int(number)
        newest[row.turn_id] = (number, thread)
        first_seq.setdefault(row.turn_id, row.seq)
    before: dict[UUID, int] = defaultdict(int)
    for row in replies:
        wrong += first_seq.get(row.in_reply_to, 0) <= before[row.thread_id]
        before[row.thread_id] = first_seq.get(row.in_reply_to, 0)
        named = _REPLY.fullmatch(texts[row.id] or "")
        wrong += not row.reduced and (named is None or named.groups() != newest.get(row.in_reply_to))
    return wrong
