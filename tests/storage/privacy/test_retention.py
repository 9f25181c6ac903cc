"""What is over its time goes, what is not stays; a dry run tells beforehand how much."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from redis.asyncio import Redis

from server.deps import Parts
from server.jobs.privacy import PrivacyJob
from storage.ids import new_id
from storage.privacy.retention import Report
from storage.repositories import audit, privacy
from storage.roles import libpq_url
from storage.sql import text
from storage.tenancy import PLATFORM_TENANT, TenantContext
from tests.storage.privacy.person import Person, dump, found, make_person, stored_files
from tests.support.servers import Addresses
from tests.support.world import TestTenant


def later(days: int) -> Callable[[], datetime]:
    return lambda: datetime.now(UTC) + timedelta(days=days)


def aged(parts: Parts, person: Person, days: int) -> None:
    """As if the person had come and gone so long ago."""
    back = f"- interval '{days} days'"
    with psycopg.connect(libpq_url(parts.storage.role_urls().admin or "")) as connection:
        for statement in (
            f"update threads set created_at = created_at {back}, updated_at = updated_at {back} where id = any(%(t)s)",
            f"update inbox_messages set created_at = created_at {back} where thread_id = any(%(t)s)",
            f"update turn_steps set ended_at = ended_at {back} where thread_id = any(%(t)s)",
            f"update contacts set updated_at = updated_at {back} where id = %(c)s",
            f"update leads set updated_at = updated_at {back} where contact_id = %(c)s",
            f"update notes set created_at = created_at {back} where contact_id = %(c)s",
        ):
            connection.execute(statement.encode(), {"t": person.threads, "c": person.contact_id})


async def both(job: PrivacyJob, tenant: TestTenant) -> Report:
    """A dry run and a real one, which must tell the same; a second dry run must find nothing more."""
    told = await job.retention.run(tenant.info.id, dry_run=True)
    done = await job.retention.run(tenant.info.id)
    assert told == done
    assert (await job.retention.run(tenant.info.id, dry_run=True)).total == 0
    return done


async def test_a_dry_run_tells_what_a_real_one_does_and_changes_nothing(
    own: Parts,
    business: TestTenant,
    job: PrivacyJob,
    addresses: Addresses,
    database_name: str,
    tmp_path: Path,
) -> None:
    old = await make_person(own, business, "old")
    middle = await make_person(own, business, "middle")
    young = await make_person(own, business, "young")
    aged(own, old, 800)
    aged(own, middle, 100)
    with psycopg.connect(libpq_url(own.storage.role_urls().admin or "")) as connection:
        connection.execute(
            "update idempotency_keys set created_at = created_at - interval '31 days', locked_until = created_at"
            " where id = (select min(id::text)::uuid from idempotency_keys)"
        )
        for days in (29, 31):
            connection.execute(
                """
                insert into sessions (id, account_id, tenant_id, kind, security_version, amr, expires_at, device, place)
                values (%s, %s, %s, 'program', 1, '{}', now() - make_interval(days => %s), 'x', 'x')
                """,
                (new_id(), business.staff_id, business.info.id, days),
            )
    before, files = dump(addresses, database_name), stored_files(tmp_path / "files", business)
    told = await job.retention.run(business.info.id, dry_run=True)
    assert _comparable(dump(addresses, database_name)) == _comparable(before)
    assert stored_files(tmp_path / "files", business) == files

    done = await both(job, business)
    assert done == told
    assert done.counts == {
        "conversation": {"threads": 2},
        "trace": {"turn_steps": 2, "checkpoints": 4},
        "relationship": {"contacts": 0},
        "session": {"sessions": 1, "one_time_tokens": 0, "mails": 0, "idempotency_keys": 1},
        "audit": {"audit_log": 0},
        "age": {},
        "export": {"files": 0},
    }
    dumped = dump(addresses, database_name)
    assert old.canaries["visitor"] not in dumped
    assert middle.canaries["visitor"] in dumped
    async with own.database.tenant_session(business.context) as session:
        rows = (
            await session.execute(
                text("""
                select t.contact_id, t.erased_at is not null as erased, count(m.id) as messages, count(m.text) as texts,
                       (select count(*) from turn_steps s where s.thread_id = t.id) as steps
                  from threads t join inbox_messages m on m.thread_id = t.id group by t.tenant_id, t.id order by t.id
                """)
            )
        ).all()
        entry = (await audit.search(session, action="retention.applied"))[0]
        contacts = await session.scalar(text("select count(*) from contacts where erased_at is null"))
    assert [tuple(row) for row in rows] == [
        *[(old.contact_id, True, 2, 0, 0)] * 2,
        *[(middle.contact_id, False, 2, 2, 0)] * 2,
        *[(young.contact_id, False, 2, 2, 1)] * 2,
    ]
    assert (contacts, entry["detail"]["counts"]["conversation"]) == (3, {"threads": 2})
    assert set(stored_files(tmp_path / "files", business)) == set(map(str, middle.files + young.files))


def _comparable(dumped: str) -> list[str]:
    return [
        line
        for line in dumped.splitlines()
        if not line.startswith(("\\restrict", "\\unrestrict", "SELECT pg_catalog.setval"))
    ]


async def test_a_legal_hold_stops_the_clock(own: Parts, business: TestTenant, job: PrivacyJob) -> None:
    person = await make_person(own, business, "kept")
    aged(own, person, 800)
    async with own.database.tenant_session(business.context) as session:
        await privacy.set_legal_hold(session, person.contact_id, "a lawsuit is open")
    counts = (await job.retention.run(business.info.id)).counts
    assert (counts["conversation"], counts["trace"]["checkpoints"]) == ({"threads": 0}, 0)


async def test_contacts_go_where_the_business_says_when(
    own: Parts, business: TestTenant, job: PrivacyJob, addresses: Addresses, database_name: str
) -> None:
    idle = await make_person(own, business, "idle")
    active = await make_person(own, business, "active")
    aged(own, idle, 800)
    async with own.database.identity_session() as session:
        await session.execute(
            text("""update tenants set settings = '{"retention": {"relationship": 700}}' where id = :id"""),
            {"id": business.info.id},
        )
    done = await both(job, business)
    assert done.counts["relationship"] == {"contacts": 1}
    assert await job.drain() == 1
    dumped = dump(addresses, database_name)
    assert found(dumped, idle.raw) == []
    async with own.database.tenant_session(business.context) as session:
        left = list(await session.scalars(text("select id from contacts where erased_at is null")))
        (request,) = await privacy.requests(session, contact_id=None, before=None, limit=10)
    assert left == [active.contact_id]
    assert (request["requested_by"], request["state"]) == ("job:retention", "done")


async def test_the_audit_log_loses_its_beginning_and_still_verifies(
    own: Parts, business: TestTenant, redis: Redis, tombstones: Path
) -> None:
    for number in range(3):
        async with own.database.tenant_session(business.context) as session:
            await audit.record(session, business.context, "contact.read", "contact", number)
    # The database's own clock allows what is 30 days old; entries are moved instead of it.
    with psycopg.connect(libpq_url(own.storage.role_urls().admin or "")) as connection:
        connection.execute(
            """
            update audit_log a set created_at = created_at - interval '6 years'
             where tenant_id = %s and seq < (select max(seq) from audit_log b where b.tenant_id = a.tenant_id)
            """,
            (business.info.id,),
        )
    job = PrivacyJob(own.database, own.files, own.bus, redis, tombstones)
    done = await both(job, business)
    assert done.counts["audit"] == {"audit_log": 2}
    async with own.database.tenant_session(business.context) as session:
        assert (await audit.verify(session)).findings == ()


async def test_archives_go_after_a_week(
    own: Parts, business: TestTenant, redis: Redis, tombstones: Path
) -> None:
    person = await make_person(own, business, "asks")
    async with own.database.tenant_session(business.context) as session:
        await privacy.add_request(session, "export", person.contact_id, "user:test", "asked for")
    job = PrivacyJob(own.database, own.files, own.bus, redis, tombstones)
    assert await job.drain() == 1
    for days, count in ((6, 0), (8, 1)):
        then = PrivacyJob(own.database, own.files, own.bus, redis, tombstones, now=later(days))
        assert (await both(then, business)).counts["export"] == {"files": count}
    async with own.database.tenant_session(business.context) as session:
        (request,) = await privacy.requests(session, contact_id=None, before=None, limit=10)
    assert (request["state"], request["file_id"]) == ("done", None)


async def test_what_belongs_to_no_business_is_the_platform_s(
    own: Parts, business: TestTenant, job: PrivacyJob
) -> None:
    with psycopg.connect(libpq_url(own.storage.role_urls().admin or "")) as connection:
        connection.execute(
            "insert into mails (id, template, language, dedupe_key, state, sent_at) values"
            " (%s, 'x', 'en', 'a', 'sent', now() - interval '31 days'), (%s, 'x', 'en', 'b', 'pending', null),"
            " (%s, 'x', 'en', 'c', 'sent', now())",
            (new_id(), new_id(), new_id()),
        )
        connection.execute(
            "insert into one_time_tokens (id, purpose, token_hash, expires_at, used_at)"
            " values (%s, 'oidc', %s, now(), now() - interval '31 days')",
            (new_id(), b"hash"),
        )
    assert (await both(job, business)).counts["session"] == {
        "sessions": 0, "one_time_tokens": 0, "mails": 0, "idempotency_keys": 0,
    }  # fmt: skip
    told = await job.retention.run(PLATFORM_TENANT, dry_run=True)
    done = await job.retention.run(PLATFORM_TENANT)
    assert told == done
    assert done.counts["session"] == {"sessions": 0, "one_time_tokens": 1, "mails": 1, "idempotency_keys": 0}


@pytest.mark.parametrize("place", ["mark", "destroy_keys", "files", "checkpoints", "redis", "forget_rows"])
async def test_a_run_killed_anywhere_is_finished_by_the_next(
    own: Parts,
    business: TestTenant,
    job: PrivacyJob,
    addresses: Addresses,
    database_name: str,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    class Killed(BaseException):
        """As a kill."""

    person = await make_person(own, business, "old")
    aged(own, person, 800)
    target: Any = job.erasure.stores.get(place, job.erasure)
    name = "erase" if place in job.erasure.stores else place

    async def killed(*_args: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(target, name, killed)
        with pytest.raises(Killed):
            await job.retention.run(business.info.id)
    assert (await both(job, business)).counts["conversation"] == {"threads": 2}
    kept = {
        "name",
        "email",
        "phone",
        "company",
        "note",
        "note_2",
        "lead_title",
        "lead_summary",
        "consent",
        "stored_answer",
    }
    gone = [canary for place, canary in person.canaries.items() if place not in kept]
    assert found(dump(addresses, database_name), gone) == []
    async with own.database.tenant_session(business.context) as session:
        alive = await session.scalar(
            text("select count(*) from data_keys where subject_kind = 'thread' and destroyed_at is null")
        )
    assert alive == 0


async def test_proposed_days_are_only_tried_out(own: Parts, business: TestTenant, job: PrivacyJob) -> None:
    person = await make_person(own, business, "middle")
    aged(own, person, 100)
    tried = await job.retention.run(business.info.id, dry_run=True, proposed={"conversation": 30})
    assert tried.counts["conversation"] == {"threads": 2}
    assert tried.counts["trace"] == {"turn_steps": 0, "checkpoints": 0}
    with pytest.raises(ValueError, match="only proposed"):
        await job.retention.run(business.info.id, proposed={"conversation": 30})


async def test_each_business_has_its_turn_once_a_day_and_again_where_it_failed(
    own: Parts, business: TestTenant, redis: Redis, tombstones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = await make_person(own, business, "old")
    aged(own, person, 800)
    today = datetime.now(UTC)
    job = PrivacyJob(own.database, own.files, own.bus, redis, tombstones, now=lambda: today)
    platform = TenantContext(PLATFORM_TENANT, "user:test").redis_key("retention", today.date())
    await redis.delete(platform)  # the platform is the same tenant in every test
    original = job.retention.run

    async def failing(tenant_id: UUID) -> Report:
        if tenant_id == business.info.id:
            raise RuntimeError("the disk is full")
        return await original(tenant_id)

    with monkeypatch.context() as patch:
        patch.setattr(job.retention, "run", failing)
        assert await job.keep_retention() == 0
    assert [await job.keep_retention() for _ in range(2)] == [2, 0]
    today += timedelta(days=1)
    later_person = await make_person(own, business, "later")
    aged(own, later_person, 800)
    assert await job.keep_retention() == 2
    await redis.delete(platform)
