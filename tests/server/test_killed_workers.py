"""A worker is killed with -9 at each step of a message's path; another finishes: one reply, one lead, in
order, and the model is not asked again for what the journal holds.
"""

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from storage.repositories import turns
from tests.support.fickle import FickleModel
from tests.support.killer import PLACES
from tests.support.nursery import Nursery, kill, lives, marker_of
from tests.support.servers import Addresses
from tests.support.workers import Workplace, until, workplace
from tests.support.world import Visitor, make_visitor
from tools.crm import repository as crm


class Crew:
    """A survivor that finishes what others leave, and always one more worker, warm, that is to die."""

    def __init__(self, at: Workplace, model: FickleModel) -> None:
        self.at = at
        self.model = model
        self._nursery = Nursery(at.folder / "nursery.log")
        self._number = 0
        self.survivor, _, ready = self._start(gated=False)
        self._survivor_ready = ready
        self._call_next()

    def _start(self, *, gated: bool) -> tuple[int, Path, Path]:
        self._number += 1
        stem = self.at.folder / f"worker-{self._number}"
        gate, ready = stem.with_suffix(".gate"), stem.with_suffix(".ready")
        env = {**self.at.env, "READY_FILE": str(ready)}
        pid = self._nursery.start(env, stem.with_suffix(".log"), gate if gated else None)
        return pid, gate, ready

    def _call_next(self) -> None:
        self._victim, self._gate, self._victim_ready = self._start(gated=True)

    async def ready(self) -> None:
        await until(lambda: self._survivor_ready.exists() and self._victim_ready.exists(), "workers warm")

    async def kill_at(self, place: str) -> None:
        """Let the victim, and nobody else, work until it dies at the place."""
        fresh = self._gate.with_suffix(".new")
        fresh.write_text(place)
        fresh.rename(self._gate)
        victim, marker = self._victim, marker_of(self._gate)
        await until(lambda: not lives(victim), f"the worker is dead at {place}")
        assert marker.exists(), f"the worker died of something else than {place}"
        self._call_next()

    def stop(self) -> None:
        self._nursery.stop()


@pytest.fixture(scope="module")
async def crew(addresses: Addresses) -> AsyncIterator[Crew]:
    async with workplace(addresses) as at:
        model = FickleModel()
        at.sandbox.default(model)
        crew = Crew(at, model)
        yield crew
        crew.stop()


@pytest.fixture
async def stopped_survivor(crew: Crew) -> AsyncIterator[int]:
    """The survivor, frozen; whatever happens, it thaws."""
    await crew.ready()
    kill(crew.survivor, signal.SIGSTOP)
    yield crew.survivor
    kill(crew.survivor, signal.SIGCONT)


async def journalled(at: Workplace, turn_id: UUID) -> tuple[dict[str, Any], Any, str]:
    """What the journal of a turn that made a lead holds: (the call's arguments, the tool's result, the last
    text).
    """
    async with at.parts.database.tenant_session(at.tenant.context) as session:
        steps = await turns.load_steps(session, turn_id)
    _, call, last = [step.response for step in steps if step.kind == "model"]
    (result,) = [step.response for step in steps if step.kind == "tool"]
    return call["tool_calls"][0]["args"], result, last["content"]


@pytest.mark.parametrize("place", PLACES)
async def test_killed_at(crew: Crew, stopped_survivor: int, place: str) -> None:
    at = crew.at
    visitor: Visitor = await make_visitor(at.parts, at.tenant)
    first = await visitor.write(f"This is question one about {place}, write to {place}@example.org please")
    await crew.kill_at(place)
    if place == "claim-uncommitted":  # there is no turn yet: a second message would rightly join the first
        kill(stopped_survivor, signal.SIGCONT)
        await until(lambda: at.settled(visitor.thread_id), f"finished after {place}")
    second = await visitor.write(f"This is question two about {place}")
    kill(stopped_survivor, signal.SIGCONT)
    await until(lambda: at.settled(visitor.thread_id), f"finished after {place}")

    messages = await visitor.messages()
    assert [message.seq for message in messages] == [1, 2, 3, 4]
    assert [m.state for m in messages if m.direction == "in"] == ["answered", "answered"]
    replies = [message for message in messages if message.direction == "out"]
    assert [reply.in_reply_to for reply in replies] == [first.message_id, second.message_id]

    arguments, result, last = await journalled(at, first.message_id)
    assert replies[0].text == last
    assert last.endswith("to question one.")
    assert (replies[1].text or "").endswith("to question two.")
    async with at.parts.database.tenant_session(at.tenant.context) as session:
        leads = [
            lead
            for lead in await crm.list_leads(session, 200, None)
            if lead["thread_id"] == visitor.thread_id
        ]
    assert [(str(lead["id"]), lead["title"]) for lead in leads] == [(result["lead_id"], arguments["subject"])]

    sent = await at.rows(
        "select in_reply_to, state from outbox where thread_id = :thread order by seq",
        thread=visitor.thread_id,
    )
    assert [tuple(row) for row in sent] == [(first.message_id, "sent"), (second.message_id, "sent")]
    metered = await at.rows(
        "select turn_id from usage_events where turn_id = any(:turns)",
        turns=[first.message_id, second.message_id],
    )
    assert sorted(row.turn_id for row in metered) == [first.message_id, second.message_id]
    assert crew.model.asked[place, "one"] == (4 if PLACES[place].received else 3)
    assert crew.model.asked[place, "two"] == 2
    assert await at.broken() == {}


def test_there_are_enough_places() -> None:
    assert len(PLACES) >= 12
