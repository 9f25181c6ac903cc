"""Worker processes that die of a message, are stopped, or are never woken."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from storage.repositories import inbox
from tests.sandbox.openai import Fault, Reply
from tests.support.fickle import FickleModel
from tests.support.nursery import Nursery, kill, lives
from tests.support.servers import Addresses
from tests.support.workers import Workplace, until, workplace
from tests.support.world import Visitor, make_visitor

PLAIN = "This is question {} about bikes"


class Shift:
    """One worker at a time, started again when it dies."""

    def __init__(self, at: Workplace) -> None:
        self.at = at
        self._nursery = Nursery(at.folder / "nursery.log")
        self.worker = 0
        self.starts = 0

    async def work(self) -> None:
        """Have a worker that is ready."""
        if not (self.worker and lives(self.worker)):
            self.starts += 1
            ready: Path = self.at.folder / f"worker-{self.starts}.ready"
            env = {**self.at.env, "READY_FILE": str(ready)}
            self.worker = self._nursery.start(env, self.at.folder / f"worker-{self.starts}.log")
            await until(ready.exists, "the worker is warm")

    async def work_until_settled(self, visitor: Visitor, seconds: float = 60.0) -> None:
        async def settled() -> bool:
            await self.work()
            # The quarantine's process outlives its turn by a moment.
            return await self.at.settled(visitor.thread_id) and not psutil.Process(self.worker).children()

        await until(settled, "the thread is settled", seconds)

    def stop(self) -> None:
        self._nursery.stop()


@pytest.fixture(scope="module")
async def shift(addresses: Addresses) -> AsyncIterator[Shift]:
    async with workplace(addresses) as at:
        shift = Shift(at)
        await shift.work()
        yield shift
        shift.stop()


@pytest.fixture
def model(shift: Shift) -> FickleModel:
    shift.at.sandbox.reset()
    fickle = FickleModel()
    shift.at.sandbox.default(fickle)
    return fickle


def deadly(shift: Shift, model: FickleModel, *, in_quarantine: bool) -> Callable[[dict[str, Any]], Reply]:
    """A model that kills whoever asks about poison: the worker, or the process that it has started for it."""

    def answer(body: dict[str, Any]) -> Reply:
        reply = model(body)
        if "poison" in str(body["messages"]):
            children = psutil.Process(shift.worker).children()
            if not children:
                os.kill(shift.worker, signal.SIGKILL)
            elif in_quarantine:
                children[0].kill()
        return reply

    return answer


async def message_rows(shift: Shift, visitor: Visitor) -> list[tuple[Any, ...]]:
    found = await shift.at.rows(
        "select state, attempts, failures, last_error from inbox_messages where thread_id = :thread and direction = 'in'",
        thread=visitor.thread_id,
    )
    return [tuple(row) for row in found]


async def test_a_message_that_survives_its_quarantine_is_answered(shift: Shift, model: FickleModel) -> None:
    shift.at.sandbox.default(deadly(shift, model, in_quarantine=False))
    visitor = await make_visitor(shift.at.parts, shift.at.tenant)
    before = shift.starts
    await visitor.write("This is question two about poison")
    await shift.work_until_settled(visitor)
    assert shift.starts - before == 3
    assert await message_rows(shift, visitor) == [("answered", 4, 0, None)]
    assert len(await visitor.replies()) == 1
    assert model.asked == {("poison", "two"): 3 + 2}
    assert await shift.at.broken() == {}


async def test_a_message_that_dies_in_quarantine_too_is_given_up(shift: Shift, model: FickleModel) -> None:
    shift.at.sandbox.default(deadly(shift, model, in_quarantine=True))
    visitor = await make_visitor(shift.at.parts, shift.at.tenant)
    before = shift.starts
    message = await visitor.write("This is question two about poison")
    await shift.work_until_settled(visitor)
    assert (shift.starts - before, lives(shift.worker)) == (3, True)
    assert await message_rows(shift, visitor) == [
        ("dead", 4, 0, "its worker died 3 times, and the quarantine too")
    ]
    assert await visitor.replies() == []
    assert model.asked == {("poison", "two"): 4}
    async with shift.at.parts.database.tenant_session(shift.at.tenant.context) as session:
        assert [letter["id"] for letter in await inbox.dead_letters(session)] == [message.message_id]

    other = await make_visitor(shift.at.parts, shift.at.tenant)
    await other.write(PLAIN.format("two"))
    await shift.work_until_settled(other)
    assert len(await other.replies()) == 1
    assert await shift.at.broken() == {}


async def test_a_worker_that_is_told_to_stop_finishes_its_turn(shift: Shift, model: FickleModel) -> None:
    await shift.work()
    shift.at.sandbox.fault(Fault("stall_before", seconds=1.0))
    visitor = await make_visitor(shift.at.parts, shift.at.tenant)
    await visitor.write(PLAIN.format("two"))
    await until(shift.at.sandbox.chat_requests, "the model is asked")
    kill(shift.worker, signal.SIGTERM)
    late = await make_visitor(shift.at.parts, shift.at.tenant)
    await until(lambda: not lives(shift.worker), "the worker has ended")
    assert await message_rows(shift, visitor) == [("answered", 1, 0, None)]
    assert len(await visitor.replies()) == 1
    await late.write(PLAIN.format("three"))
    assert await message_rows(shift, late) == [("pending", 0, 0, None)]  # nobody is there
    await shift.work_until_settled(late)
    assert len(await late.replies()) == 1


async def test_a_lost_wake_up_is_found_by_the_sweep(shift: Shift, model: FickleModel) -> None:
    await shift.work()
    visitor = await make_visitor(shift.at.parts, shift.at.tenant)
    async with shift.at.parts.database.tenant_session(shift.at.tenant.context) as session:
        await inbox.receive(  # nobody is woken: Redis was away, or the process died after the commit
            session,
            channel_id=shift.at.tenant.channel.id,
            thread_id=visitor.thread_id,
            external_id="unheard",
            body=PLAIN.format("two"),
        )
    await until(lambda: shift.at.settled(visitor.thread_id), "the sweep has found it", 5)
    assert len(await visitor.replies()) == 1
    assert model.asked == {("bikes", "two"): 2}
