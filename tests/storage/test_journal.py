"""The turn journal: served in order on a re-run; an effect and its row commit together or not at all; whoever
lost the lease writes nothing.
"""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text

from server.deps import Parts
from storage.errors import LeaseLost
from storage.journal import JournalDiverged, Recorded, TurnJournal
from storage.repositories import claims, turns
from storage.sql import Session
from tests.support.world import TestTenant, Visitor, count
from tools.sdk.errors import ToolError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVENING = datetime(2026, 3, 1, 18, tzinfo=UTC)


class Turn:
    """A claimed turn; ``journal()`` is a run of it."""

    def __init__(self, visitor: Visitor, turn_id: UUID, fence: UUID) -> None:
        self._visitor = visitor
        self.turn_id = turn_id
        self.fence = fence

    async def steps(self) -> list[turns.Step]:
        async with self._visitor.parts.database.tenant_session(self._visitor.tenant.context) as session:
            return await turns.load_steps(session, self.turn_id)

    async def journal(self, at: datetime = NOON) -> TurnJournal:
        return TurnJournal(
            self._visitor.parts.database,
            self._visitor.tenant.context,
            turn_id=self.turn_id,
            thread_id=self._visitor.thread_id,
            fence=self.fence,
            steps=await self.steps(),
            clock=lambda: at,
        )

    async def steal(self) -> None:
        async with self._visitor.parts.database.tenant_session(self._visitor.tenant.context) as session:
            await session.execute(
                text("update threads set fence = :fence where id = :id"),
                {"fence": uuid4(), "id": self._visitor.thread_id},
            )


@pytest.fixture
async def turn(visitor: Visitor) -> Turn:
    await visitor.write("hello")
    async with visitor.parts.database.tenant_session(visitor.tenant.context) as session:
        claim = await claims.claim(session, visitor.thread_id, fence=uuid4(), lease_seconds=60)
    assert claim is not None
    return Turn(visitor, claim.turn_id, claim.fence)


async def said(text_: str) -> Recorded:
    return Recorded({"content": text_}, "m-1", 11, 7)


async def never() -> Any:
    raise AssertionError("asked again for what the journal holds")


async def note_contact(session: Session) -> dict[str, Any]:
    """An effect that can be counted: a contact."""
    contact = uuid4()
    await session.execute(
        text("insert into contacts (id, email) values (:id, :email)"),
        {"id": contact, "email": f"{contact}@example.org"},
    )
    return {"contact": str(contact)}


async def test_a_rerun_is_served_in_order_and_goes_on_where_it_ended(turn: Turn) -> None:
    first = await turn.journal()
    now, new = first.now(), first.new_id("thing")
    first.note("route", {"agent": "sales"})
    await first.model("router", {"q": 1}, lambda: said("sales"))
    await first.effect("crm_note", {"x": 1}, note_contact)

    again = await turn.journal(EVENING)
    assert (again.now(), again.new_id("thing")) == (now, new)
    assert now == NOON
    assert again.note("route", {"agent": "support"}) == {"agent": "sales"}
    served = await again.model("router", {"q": 1}, never)
    assert served == Recorded({"content": "sales"}, "m-1", 11, 7, replayed=True)
    effect = await again.effect("crm_note", {"x": 1}, lambda _session: never())
    assert again.recorded == [served]
    fresh = await again.model("answer", {"q": 2}, lambda: said("hello"))
    assert not fresh.replayed
    steps = await turn.steps()
    assert [(step.ordinal, step.kind, step.name) for step in steps] == [
        (0, "clock", "now"),
        (1, "id", "thing"),
        (2, "note", "route"),
        (3, "model", "router"),
        (4, "tool", "crm_note"),
        (5, "model", "answer"),
    ]
    assert steps[4].response == effect


async def test_the_effect_and_its_row_commit_together(
    turn: Turn, parts: Parts, tenant: TestTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = await turn.journal()
    seen: list[int] = []

    async def act(session: Session) -> dict[str, Any]:
        result = await note_contact(session)
        seen.extend([await count(parts, tenant, "contacts"), len(await turn.steps())])
        return result

    await journal.effect("crm_note", {}, act)
    assert seen == [0, 0]  # from outside, before the commit
    assert (await count(parts, tenant, "contacts"), len(await turn.steps())) == (1, 1)

    async def broken(*_args: Any, **_more: Any) -> bool:
        raise RuntimeError("the row cannot be written")

    monkeypatch.setattr(turns, "append_steps", broken)
    with pytest.raises(RuntimeError, match="cannot be written"):
        await journal.effect("crm_note", {}, note_contact)
    assert (await count(parts, tenant, "contacts"), len(await turn.steps())) == (1, 1)


async def test_a_refused_effect_is_rolled_back_and_the_refusal_takes_its_place(
    turn: Turn, parts: Parts, tenant: TestTenant
) -> None:
    journal = await turn.journal()
    now = journal.now()  # buffered: must outlive the rollback

    async def refuse(session: Session) -> dict[str, Any]:
        await note_contact(session)
        raise ToolError("not today")

    with pytest.raises(ToolError, match="not today"):
        await journal.effect("crm_note", {}, refuse)
    assert (await count(parts, tenant, "contacts"), await turn.steps()) == (0, [])

    async def refusal() -> dict[str, Any]:
        return {"error": "not today"}

    assert await journal.observe("crm_note", {}, refusal) == {"error": "not today"}
    steps = await turn.steps()
    assert [(s.ordinal, s.kind, s.name) for s in steps] == [(0, "clock", "now"), (1, "tool", "crm_note")]

    again = await turn.journal(EVENING)
    assert again.now() == now
    assert await again.effect("crm_note", {}, lambda _session: never()) == {"error": "not today"}
    assert await count(parts, tenant, "contacts") == 0


async def test_whoever_lost_the_lease_writes_nothing(turn: Turn, parts: Parts, tenant: TestTenant) -> None:
    journal = await turn.journal()
    await turn.steal()
    with pytest.raises(LeaseLost):
        await journal.effect("crm_note", {}, note_contact)
    with pytest.raises(LeaseLost):
        await journal.model("router", {}, lambda: said("sales"))
    with pytest.raises(LeaseLost):
        await (await turn.journal()).observe("look", {}, lambda: note_look())
    assert (await count(parts, tenant, "contacts"), await turn.steps()) == (0, [])


async def note_look() -> dict[str, Any]:
    return {"seen": True}


async def test_a_worker_whose_steps_the_database_has_lost_stops(
    turn: Turn, parts: Parts, tenant: TestTenant
) -> None:
    journal = await turn.journal()
    await journal.model("router", {}, lambda: said("sales"))
    # What a crash of the server does to a commit that did not wait for the disk; the lease is older and stays.
    admin = parts.storage.role_urls().admin
    assert admin is not None
    with psycopg.connect(admin, autocommit=True) as connection:
        assert connection.execute("delete from turn_steps").rowcount == 1
    with pytest.raises(LeaseLost):
        await journal.effect("crm_note", {}, note_contact)
    with pytest.raises(LeaseLost):
        await journal.model("answer", {}, lambda: said("hello"))
    assert (await count(parts, tenant, "contacts"), await turn.steps()) == (0, [])


async def test_the_second_of_two_runs_under_one_lease_stops(
    turn: Turn, parts: Parts, tenant: TestTenant
) -> None:
    one, two = await turn.journal(), await turn.journal()
    await one.effect("crm_note", {}, note_contact)
    with pytest.raises(LeaseLost):
        await two.effect("crm_note", {}, note_contact)
    assert (await count(parts, tenant, "contacts"), len(await turn.steps())) == (1, 1)


async def test_code_that_was_changed_in_mid_turn_is_told(turn: Turn) -> None:
    await (await turn.journal()).model("router", {"q": 1}, lambda: said("sales"))
    again = await turn.journal()
    with pytest.raises(JournalDiverged, match="it holds model 'router', the code asks for model 'answer'"):
        await again.model("answer", {"q": 1}, never)
    with pytest.raises(JournalDiverged, match="the code asks for clock 'now'"):
        again.now()


async def test_an_edited_prompt_does_not_change_what_was_decided(turn: Turn) -> None:
    await (await turn.journal()).model("router", {"q": "old"}, lambda: said("sales"))
    served = await (await turn.journal()).model("router", {"q": "new"}, never)
    assert (served.response, served.replayed) == ({"content": "sales"}, True)
    (step,) = await turn.steps()
    assert step.request == {"q": "old"}


async def test_pure_steps_wait_for_the_next_write(turn: Turn) -> None:
    journal = await turn.journal()
    journal.now()
    journal.note("screened", {"text": "hello"})
    assert (await turn.steps(), journal.place) == ([], 2)
    await journal.flush()
    assert [step.kind for step in await turn.steps()] == ["clock", "note"]
    await journal.flush()  # nothing is left to write
    assert len(await turn.steps()) == 2
