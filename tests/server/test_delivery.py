"""One message, one effect: whatever is delivered twice, run twice, failed, stolen or broken off."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from graphs.conversation import nodes
from server.deps import Parts
from server.jobs.inbox import BACKOFF, MAX_FAILURES
from server.jobs.outbox import OutboxJob
from server.jobs.workforce import Workforce
from storage.errors import Conflict
from storage.repositories import inbox, invariants, threads
from storage.repositories.outbox import Delivery
from storage.tenancy import TenantContext, is_connection_loss
from tests.sandbox.openai import Fault, OpenAISandbox
from tests.support.fickle import FickleModel
from tests.support.workers import until
from tests.support.world import TestTenant, Visitor, answering, count, make_visitor

LEAD = "This is question one about bikes, write to anna@example.org please"
PLAIN = "This is question {} about bikes"
STUCK = Fault("stall_before", seconds=60)  # until the test releases it


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No tracebacks: structlog's development renderer takes seconds for one of a graph."""
    with capture_logs():
        yield


@pytest.fixture
def model(scripted: OpenAISandbox) -> FickleModel:
    fickle = FickleModel()
    scripted.default(fickle)
    return fickle


@pytest.fixture
async def job(model: FickleModel, parts: Parts) -> AsyncIterator[Any]:
    async with answering(parts) as inbox_job:
        yield inbox_job


async def rows(visitor: Visitor, sql: str) -> list[tuple[Any, ...]]:
    async with visitor.parts.database.tenant_session(visitor.tenant.context) as session:
        return [tuple(row) for row in (await session.execute(text(sql))).all()]


async def change(visitor: Visitor, sql: str, **values: Any) -> None:
    async with visitor.parts.database.tenant_session(visitor.tenant.context) as session:
        await session.execute(text(sql), values)


async def effects(visitor: Visitor) -> dict[str, int]:
    tables = ("leads", "usage_events", "outbox", "contacts")
    counted = {name: await count(visitor.parts, visitor.tenant, name) for name in tables}
    return {**counted, "replies": len(await visitor.replies())}


ONCE = {"leads": 1, "usage_events": 1, "outbox": 1, "contacts": 1, "replies": 1}
NOTHING = dict.fromkeys(ONCE, 0)


async def assert_whole(parts: Parts) -> None:
    async with parts.database.platform_session("test: invariants are about all tenants") as session:
        found = await invariants.violations(session)
    assert {name: bad for name, bad in found.items() if bad} == {}


async def test_ten_deliveries_at_once_are_one_message(visitor: Visitor) -> None:
    received = await asyncio.gather(*(visitor.write(LEAD, "wamid.1") for _ in range(10)))
    assert sorted(item.created for item in received) == [False] * 9 + [True]
    assert {(item.message_id, item.seq) for item in received} == {(received[0].message_id, 1)}
    assert [(m.external_id, m.seq, m.text) for m in await visitor.messages()] == [("wamid.1", 1, LEAD)]
    assert (await visitor.write("next", "wamid.2")).seq == 2


async def test_a_message_id_of_another_thread_is_refused(parts: Parts, visitor: Visitor) -> None:
    other = await make_visitor(parts, visitor.tenant)
    await visitor.write("mine", "wamid.1")
    with pytest.raises(Conflict):
        await other.write("theirs", "wamid.1")
    assert await other.messages() == []
    assert (await other.write("theirs", "wamid.2")).seq == 1


async def test_every_job_twice(
    job: Any, model: FickleModel, parts: Parts, tenant: TestTenant, visitor: Visitor
) -> None:
    await visitor.write(LEAD)
    await asyncio.gather(*(job.drain(tenant.info.id, visitor.thread_id) for _ in range(2)))
    await job.drain(tenant.info.id, visitor.thread_id)
    assert await effects(visitor) == ONCE
    assert model.asked == {("bikes", "one"): 3}

    sent: list[Delivery] = []

    class Counting:
        repeatable = False

        async def send(self, _context: TenantContext, delivery: Delivery) -> str | None:
            sent.append(delivery)
            await asyncio.sleep(0.05)  # long enough for the other job to come by
            return "provider-1"

    assert await rows(visitor, "select state, tries from outbox") == [("sent", 1)]
    await change(visitor, "update outbox set state = 'pending', lease_until = null")
    outbox = OutboxJob(parts.database, {"widget": Counting()})
    await asyncio.gather(*(outbox.drain(tenant.info.id, visitor.thread_id) for _ in range(2)))
    await outbox.drain(tenant.info.id, visitor.thread_id)
    (reply,) = await visitor.replies()
    assert [delivery.message_id for delivery in sent] == [reply.id]
    assert await rows(visitor, "select state, provider_id from outbox") == [("sent", "provider-1")]
    await assert_whole(parts)


async def test_what_comes_in_meanwhile_is_answered_together(
    job: Any, scripted: OpenAISandbox, model: FickleModel, tenant: TestTenant, visitor: Visitor
) -> None:
    scripted.fault(STUCK)
    first = await visitor.write(PLAIN.format("zero"))
    work = asyncio.create_task(job.drain(tenant.info.id, visitor.thread_id))
    await until(scripted.chat_requests, "the model is asked")
    more = [await visitor.write(PLAIN.format(word)) for word in ("two", "three", "four")]
    scripted.release()
    await work

    replies = await visitor.replies()
    assert [reply.in_reply_to for reply in replies] == [first.message_id, more[0].message_id]
    assert (replies[1].text or "").endswith("to question four.")
    assert [(m.seq, m.direction) for m in await visitor.messages()] == [
        (1, "in"), (2, "in"), (3, "in"), (4, "in"), (5, "out"), (6, "out"),
    ]  # fmt: skip
    asked = scripted.chat_requests()[-1]["messages"][-1]["content"]
    assert asked == "\n\n".join(PLAIN.format(word) for word in ("two", "three", "four"))
    assert model.asked == {("bikes", "zero"): 2, ("bikes", "four"): 2}
    assert await count(visitor.parts, tenant, "usage_events") == 2


def failing(monkeypatch: pytest.MonkeyPatch, kind: type[Exception] = RuntimeError) -> list[int]:
    """Break the last step of a turn, after all that is journalled; returns a list that grows by each try."""
    tries: list[int] = []

    async def broken(*_args: Any) -> Any:
        tries.append(1)
        raise kind("the check is broken")

    monkeypatch.setattr(nodes, "check_citations", broken)
    return tries


async def test_a_turn_keeps_its_members_on_a_rerun(
    job: Any, model: FickleModel, tenant: TestTenant, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await visitor.write(PLAIN.format("six")), await visitor.write(PLAIN.format("seven"))
    with monkeypatch.context() as broken:
        assert failing(broken) == []
        await job.drain(tenant.info.id, visitor.thread_id)
    three = await visitor.write(PLAIN.format("eight"))
    await job.drain(tenant.info.id, visitor.thread_id)
    assert await visitor.replies() == []  # it backs off, and the younger one waits behind it
    await change(visitor, "update inbox_messages set available_at = clock_timestamp()")
    await job.drain(tenant.info.id, visitor.thread_id)

    messages = await visitor.messages()
    turns = {message.id: message.turn_id for message in messages if message.direction == "in"}
    assert turns == {
        one.message_id: one.message_id, two.message_id: one.message_id, three.message_id: three.message_id,
    }  # fmt: skip
    assert [m.in_reply_to for m in messages if m.direction == "out"] == [one.message_id, three.message_id]
    assert model.asked == {("bikes", "seven"): 2, ("bikes", "eight"): 2}


async def test_failures_back_off_end_as_a_dead_letter_and_can_be_replayed(
    job: Any,
    model: FickleModel,
    parts: Parts,
    tenant: TestTenant,
    visitor: Visitor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message = await visitor.write(LEAD)
    with monkeypatch.context() as broken:
        tries = failing(broken)
        for failures in range(1, MAX_FAILURES):
            await job.drain(tenant.info.id, visitor.thread_id)
            ((state, counted, error, wait),) = await rows(
                visitor,
                "select state, failures, last_error, available_at - clock_timestamp() from inbox_messages",
            )
            assert (state, counted, error) == ("pending", failures, "RuntimeError")
            expected = BACKOFF[failures - 1]
            assert timedelta(seconds=expected * 0.8 - 0.5) < wait < timedelta(seconds=expected * 1.2)
            await change(visitor, "update inbox_messages set available_at = clock_timestamp()")
        await job.drain(tenant.info.id, visitor.thread_id)
        assert len(tries) == MAX_FAILURES

    assert await rows(visitor, "select state, failures from inbox_messages") == [("dead", MAX_FAILURES - 1)]
    assert await rows(visitor, "select needs_human_at is not null, lease_until from threads") == [
        (True, None)
    ]
    assert {**await effects(visitor)} == {**NOTHING, "leads": 1, "contacts": 1}
    async with parts.database.tenant_session(tenant.context) as session:
        (letter,) = await inbox.dead_letters(session)
        assert (letter["id"], letter["last_error"]) == (
            message.message_id,
            "RuntimeError",
        )
    await job.drain(tenant.info.id, visitor.thread_id)
    assert await visitor.replies() == []

    async with parts.database.tenant_session(tenant.context) as session:
        assert await inbox.replay(session, message.message_id) == visitor.thread_id
    await job.drain(tenant.info.id, visitor.thread_id)
    assert await effects(visitor) == ONCE
    assert model.asked == {("bikes", "one"): 3}  # all of it the first time
    async with parts.database.tenant_session(tenant.context) as session:
        assert await inbox.dead_letters(session) == []
        with pytest.raises(Conflict):
            await inbox.replay(session, message.message_id)
    await assert_whole(parts)


async def test_a_turn_that_takes_too_long_has_failed(
    model: FickleModel, scripted: OpenAISandbox, parts: Parts, tenant: TestTenant, visitor: Visitor
) -> None:
    scripted.fault(STUCK)
    await visitor.write(PLAIN.format("two"))
    async with answering(parts, turn_timeout=0.3) as job:
        await job.drain(tenant.info.id, visitor.thread_id)
    ((state, failures, error),) = await rows(
        visitor, "select state, failures, last_error from inbox_messages"
    )
    assert (state, failures) == ("pending", 1)
    assert error.startswith("TimeoutError")


def test_a_server_that_went_away_is_nobodys_failure() -> None:
    assert is_connection_loss(psycopg.OperationalError("the connection is closed"))  # the checkpoints' driver
    assert not is_connection_loss(psycopg.errors.UniqueViolation("taken"))


async def test_a_stale_worker_writes_nothing(
    job: Any, scripted: OpenAISandbox, model: FickleModel, parts: Parts, tenant: TestTenant, visitor: Visitor
) -> None:
    scripted.fault(STUCK)
    await visitor.write(LEAD)
    stale = asyncio.create_task(job.drain(tenant.info.id, visitor.thread_id))
    await until(scripted.chat_requests, "the model is asked")
    await change(
        visitor,
        "update threads set fence = :fence, lease_until = clock_timestamp() + interval '1 h'",
        fence=uuid4(),
    )
    scripted.release()
    await stale
    assert await effects(visitor) == NOTHING
    assert await count(parts, tenant, "turn_steps") == 0
    assert await rows(visitor, "select state, failures from inbox_messages") == [("pending", 0)]

    await change(visitor, "update threads set lease_until = clock_timestamp()")
    await job.drain(tenant.info.id, visitor.thread_id)
    assert await effects(visitor) == ONCE
    await assert_whole(parts)


async def test_two_workers_on_one_turn_leave_one_result(
    job: Any, scripted: OpenAISandbox, model: FickleModel, parts: Parts, tenant: TestTenant, visitor: Visitor
) -> None:
    scripted.fault(STUCK)
    await visitor.write(LEAD)
    stale = asyncio.create_task(job.drain(tenant.info.id, visitor.thread_id))
    await until(scripted.chat_requests, "the model is asked")
    await change(visitor, "update threads set lease_until = clock_timestamp()")
    await job.drain(tenant.info.id, visitor.thread_id)  # another one, while the first is stuck
    done, steps = await effects(visitor), await count(parts, tenant, "turn_steps")
    (reply,) = await visitor.replies()
    assert done == ONCE
    scripted.release()
    await stale
    assert (await effects(visitor), await count(parts, tenant, "turn_steps")) == (done, steps)
    assert await visitor.replies() == [reply]
    await assert_whole(parts)


async def test_a_person_who_takes_over_is_not_talked_into(
    job: Any, scripted: OpenAISandbox, model: FickleModel, parts: Parts, tenant: TestTenant, visitor: Visitor
) -> None:
    scripted.fault(STUCK)
    await visitor.write(PLAIN.format("two"))
    work = asyncio.create_task(job.drain(tenant.info.id, visitor.thread_id))
    await until(scripted.chat_requests, "the model is asked")
    async with parts.database.tenant_session(tenant.context) as session:
        await threads.set_handler(session, visitor.thread_id, "human")
    scripted.release()
    await work
    await visitor.write(PLAIN.format("three"))
    await job.drain(tenant.info.id, visitor.thread_id)
    assert await effects(visitor) == NOTHING
    assert [message.state for message in await visitor.messages()] == ["human", "human"]
    assert await rows(visitor, "select handler, fence, lease_until from threads") == [("human", None, None)]
    await assert_whole(parts)


async def test_a_worker_that_is_stopped_returns_its_turn(
    job: Any, scripted: OpenAISandbox, model: FickleModel, parts: Parts, tenant: TestTenant, visitor: Visitor
) -> None:
    def answer_stuck(_body: dict[str, Any]) -> Any:
        scripted.fault(STUCK)  # strikes the next request: the specialist's
        return model(_body)

    scripted.script(answer_stuck)
    await visitor.write(PLAIN.format("two"))
    force = Workforce(1)
    key: tuple[str, UUID] = ("inbox", visitor.thread_id)
    force.ask(key, lambda: job.drain(tenant.info.id, visitor.thread_id))
    await until(lambda: len(scripted.chat_requests()) == 2, "the specialist's model is asked")
    await force.aclose(0.1)
    assert await rows(visitor, "select state, attempts, failures from inbox_messages") == [("pending", 0, 0)]
    assert await rows(visitor, "select fence, lease_until from threads") == [(None, None)]
    scripted.release()

    await job.drain(tenant.info.id, visitor.thread_id)
    assert len(await visitor.replies()) == 1
    # The route is in the journal; only the specialist, who was broken off, is asked again.
    assert ["tools" in body for body in scripted.chat_requests()] == [False, True, True]
    await assert_whole(parts)
