"""After an erasure nothing of the person is anywhere, and nothing of anybody else has changed."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from server.deps import Parts
from server.jobs import privacy as jobs
from server.jobs.privacy import PrivacyJob
from storage.crypto.tombstones import read_tombstones
from storage.privacy import erasure as steps
from storage.privacy.subjects import scope_of
from storage.repositories import invariants, privacy
from storage.sql import text
from tests.storage.privacy.person import Person, dump, found, make_person, stored_files
from tests.support.servers import Addresses
from tests.support.world import TestTenant
from tools.crm import repository as crm


async def ask(parts: Parts, person: Person, kind: str = "erasure") -> UUID:
    async with parts.database.tenant_session(person.tenant.context) as session:
        return await privacy.add_request(session, kind, person.contact_id, "user:test", "they asked for it")


async def outcome(parts: Parts, person: Person, request_id: UUID) -> dict[str, Any]:
    async with parts.database.tenant_session(person.tenant.context) as session:
        return await privacy.request(session, request_id)


async def rows_of(parts: Parts, person: Person) -> dict[str, list[str]]:
    """Every row that is about a person, with all of its columns, as text."""
    tables = {
        "contacts": "id = :contact", "leads": "contact_id = :contact", "notes": "contact_id = :contact",
        "consents": "contact_id = :contact", "threads": "id = any(:threads)", "inbox_messages": "thread_id = any(:threads)",
        "pii_vault": "thread_id = any(:threads)", "turn_steps": "thread_id = any(:threads)",
        "outbox": "thread_id = any(:threads)",
        "attachments": "message_id in (select id from inbox_messages where thread_id = any(:threads))",
        "data_keys": "subject_id = any(:threads) or subject_id = :contact",
        "checkpoints": "thread_id = any(:names)", "checkpoint_blobs": "thread_id = any(:names)",
    }  # fmt: skip
    values = {
        "contact": person.contact_id,
        "threads": person.threads,
        "names": [person.tenant.context.checkpoint_thread(thread) for thread in person.threads],
    }
    async with parts.database.tenant_session(person.tenant.context) as session:
        return {
            name: sorted(await session.scalars(text(f"select t::text from {name} t where {where}"), values))
            for name, where in tables.items()
        }


async def test_no_canary_is_left_and_nobody_else_is_touched(
    own: Parts,
    business: TestTenant,
    job: PrivacyJob,
    redis: Redis,
    tombstones: Path,
    tmp_path: Path,
    addresses: Addresses,
    database_name: str,
) -> None:
    gone = await make_person(own, business, "gone")
    stays = await make_person(own, business, "stays")
    assert len(set(gone.raw)) == 20
    before, files_before = await rows_of(own, stays), stored_files(tmp_path / "files", business)
    request_id = await ask(own, gone)

    # Before: unreadable in the dump, but the visitor's name in the channel; readable with the keys.
    assert found(dump(addresses, database_name), gone.raw) == [gone.canaries["visitor"]]
    assert await job.drain() == 1

    done = await outcome(own, gone, request_id)
    assert (done["state"], done["step"], done["last_error"]) == ("done", "redis", None)
    result = done["result"]
    assert set(result["verification"]["left"].values()) == {0}
    assert result["mark"] == {"threads": 2, "messages_settled": 0, "replies_given_up": 0}
    assert result["rows"] == {
        "attachments": 2, "consents": 1, "contacts": 1, "inbox_messages": 4, "leads": 1, "notes": 2, "pii_vault": 2,
        "threads": 2, "turn_steps": 2,
    }  # fmt: skip
    assert (result["files"], result["checkpoints"], result["redis"], result["stored_answers"]) == (2, 4, 2, 2)
    assert len(result["keys"]) == 3
    (stone,) = read_tombstones(tombstones.read_text().splitlines())[0]
    assert sorted(map(str, stone.key_ids)) == sorted(result["keys"])

    assert found(dump(addresses, database_name), gone.raw) == []
    assert await rows_of(own, stays) == before
    left = stored_files(tmp_path / "files", business)
    assert left == {name: files_before[name] for name in map(str, stays.files)}
    assert [await redis.exists(key) for key in gone.redis_keys + stays.redis_keys] == [0, 0, 1, 1]

    async with own.database.tenant_session(business.context) as session:
        actions = list(await session.scalars(text("select action from audit_log order by seq")))
        answers = (await session.execute(text("select state, body from idempotency_keys"))).all()
    assert actions[-1] == "privacy.erasure.done"
    assert [tuple(row) for row in answers] == [("committed", None)] * 2
    # But for the one that counts a lead by the journal, which is gone.
    async with own.database.platform_session("test") as session:
        for invariant in invariants.INVARIANTS:
            if invariant.name != "one_lead_a_call":
                assert (await session.execute(text(invariant.sql))).all() == [], invariant.name


async def test_without_the_keys_a_dump_from_before_cannot_be_read(
    own: Parts, business: TestTenant, job: PrivacyJob
) -> None:
    gone = await make_person(own, business, "gone")
    async with own.database.tenant_session(business.context) as session:
        before = (
            await session.execute(
                text("select id, text from inbox_messages where thread_id = any(:t)"), {"t": gone.threads}
            )
        ).all()
        assert gone.canaries["message_in"] in await session.cipher.open_many(
            "inbox_messages.text", [(row.id, row.text) for row in before]
        )
    await ask(own, gone)
    await job.drain()
    async with own.database.tenant_session(business.context) as session:
        opened = await session.cipher.open_many("inbox_messages.text", [(row.id, row.text) for row in before])
    assert opened == [None] * 4


class Killed(BaseException):
    """As a kill: nothing catches it, nothing is tidied up by it."""


PLACES = [
    (name, when)
    for name in ("mark", "destroy_keys", "forget", "files", "checkpoints", "forget_rows", "stored_answers", "redis", "verify")
    for when in ("before", "after")
]  # fmt: skip


@pytest.mark.parametrize(("place", "when"), PLACES)
async def test_a_job_killed_anywhere_is_taken_up_by_another(
    own: Parts,
    business: TestTenant,
    redis: Redis,
    tombstones: Path,
    addresses: Addresses,
    database_name: str,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    when: str,
) -> None:
    gone = await make_person(own, business, "gone")
    request_id = await ask(own, gone)
    dies = PrivacyJob(own.database, own.files, own.bus, redis, tombstones, lease_seconds=0.2)
    target: Any = dies.erasure.stores.get(place, dies.erasure)
    name = "erase" if place in dies.erasure.stores else place
    original = getattr(target, name)

    async def killed(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            await original(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(target, name, killed)
        with pytest.raises(Killed):
            await dies.drain()
    assert (await outcome(own, gone, request_id))["state"] == "pending"

    survivor = PrivacyJob(own.database, own.files, own.bus, redis, tombstones)
    async with asyncio.timeout(10):
        while not await survivor.drain():
            await asyncio.sleep(0.05)
    done = await outcome(own, gone, request_id)
    assert done["state"] == "done"
    assert set(done["result"]["verification"]["left"].values()) == {0}
    assert found(dump(addresses, database_name), gone.raw) == []
    async with own.database.tenant_session(business.context) as session:
        destroyed = set(
            await session.scalars(
                text("select id::text from data_keys where destroyed_at is not null"),
            )
        )
    stones, unreadable = read_tombstones(tombstones.read_text().splitlines())
    assert unreadable == []
    assert {str(key) for stone in stones for key in stone.key_ids} >= destroyed == set(done["result"]["keys"])


async def test_a_legal_hold_keeps_everything(own: Parts, business: TestTenant, job: PrivacyJob) -> None:
    person = await make_person(own, business, "kept")
    request_id = await ask(own, person)
    async with own.database.tenant_session(business.context) as session:
        await privacy.set_legal_hold(session, person.contact_id, "a lawsuit is open")
    before = await rows_of(own, person)
    assert await job.drain() == 1
    done = await outcome(own, person, request_id)
    assert (done["state"], done["step"], done["last_error"]) == (
        "failed", None, "LegalHold: This contact is under legal hold.",
    )  # fmt: skip
    assert await rows_of(own, person) == before


async def test_open_work_ends_and_the_worker_at_it_loses_its_lease(
    own: Parts, business: TestTenant, job: PrivacyJob
) -> None:
    person = await make_person(own, business, "open")
    async with own.database.tenant_session(business.context) as session:
        await session.execute(
            text("update inbox_messages set state = 'pending' where thread_id = :t and direction = 'in'"),
            {"t": person.threads[0]},
        )
        await session.execute(
            text("update inbox_messages set state = 'dead' where thread_id = :t and direction = 'in'"),
            {"t": person.threads[1]},
        )
        await session.execute(
            text("update outbox set state = 'pending' where thread_id = :t"), {"t": person.threads[0]}
        )
        await session.execute(
            text(
                "update threads set lease_until = clock_timestamp() + interval '1 hour', needs_human_at = clock_timestamp()"
            )
        )
    request_id = await ask(own, person)
    assert await job.drain() == 1
    assert (await outcome(own, person, request_id))["result"]["mark"] == {
        "threads": 2, "messages_settled": 2, "replies_given_up": 1,
    }  # fmt: skip
    async with own.database.tenant_session(business.context) as session:
        threads = (
            await session.execute(
                text("select fence, lease_until, needs_human_at, erased_at is null from threads")
            )
        ).all()
        states = list(await session.scalars(text("select state from inbox_messages order by thread_id, seq")))
    assert [tuple(row) for row in threads] == [(None, None, None, False)] * 2
    assert states == ["human", "reply"] * 2


async def test_what_came_in_behind_the_rows_is_found_and_forgotten_in_a_second_round(
    own: Parts, business: TestTenant, job: PrivacyJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await make_person(own, business, "late")
    request_id = await ask(own, person)
    original = job.erasure.stores["redis"].erase
    late: list[UUID] = []

    async def slow(*args: Any) -> int:
        if not late:
            async with own.database.tenant_session(business.context) as session:
                late.append(await crm.add_note(session, person.contact_id, "user:test", "a late remark"))
        return await original(*args)

    monkeypatch.setattr(job.erasure.stores["redis"], "erase", slow)
    monkeypatch.setattr(jobs, "BACKOFF", (0.0,))
    assert await job.drain() == 0
    waiting = await outcome(own, person, request_id)
    assert (waiting["state"], waiting["step"], waiting["last_error"]) == ("pending", None, "NotClean")
    assert await job.drain() == 1
    done = await outcome(own, person, request_id)
    assert (done["state"], done["result"]["rows"]["notes"], len(done["result"]["keys"])) == ("done", 3, 4)
    async with own.database.tenant_session(business.context) as session:
        scope = await scope_of(session, person.contact_id)
    assert (await job.erasure.verify(business.context, scope)).clean


async def test_other_processes_drop_the_keys(own: Parts, business: TestTenant, job: PrivacyJob) -> None:
    person = await make_person(own, business, "gone")
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    await own.bus.subscribe(steps.FORGET_CHANNEL, heard.put)
    await asyncio.sleep(0)
    request_id = await ask(own, person)
    async with asyncio.timeout(10):
        while not heard.qsize():  # the subscription is on its way
            await own.bus.publish(steps.FORGET_CHANNEL, {"keys": []})
            await asyncio.sleep(0.02)
        await job.drain()
        keys = set((await outcome(own, person, request_id))["result"]["keys"])
        while set((await heard.get())["keys"]) != keys:
            pass


async def test_an_erased_person_who_writes_again_is_somebody_new(
    own: Parts, business: TestTenant, job: PrivacyJob
) -> None:
    person = await make_person(own, business, "back")
    await ask(own, person)
    await job.drain()
    async with own.database.tenant_session(business.context) as session:
        assert await crm.contact_by_reach(session, person.canaries["email"], None) is None
        assert await crm.add_contact(session, {"email": person.canaries["email"]}) is not None
