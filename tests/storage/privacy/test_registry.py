"""A column that is added to a model is exported, erased, kept by a rule and recorded, without a line of code."""

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import LargeBinary, Text
from sqlalchemy.orm import Mapped, mapped_column

from server.deps import Parts
from server.jobs.privacy import PrivacyJob
from storage import registry
from storage.base import Base, TenantRow
from storage.crypto.cipher import Subject
from storage.ids import new_id
from storage.privacy.erasure import STEPS
from storage.privacy.ropa import Recipient, markdown, record_of
from storage.privacy.rules import MEANINGS, aged, rules_of, way_of
from storage.privacy.subjects import Scope, left_of, tables
from storage.registry import SubjectLink, personal, plain
from storage.roles import libpq_url
from storage.sql import text
from tests.support.world import TestTenant

PEOPLE = ("contact", "thread")


@pytest.fixture
def gadgets() -> Iterator[type[TenantRow]]:
    """A model that the product does not know: a thing that a contact has, in three columns with three ends, and its log."""

    class Gadget(TenantRow):
        __tablename__ = "gadgets"
        __subject__ = SubjectLink("contact", "contact_id")

        contact_id: Mapped[UUID]
        serial: Mapped[str] = mapped_column(
            Text,
            info=personal(
                "IDENTIFIER",
                purpose="relationship",
                retention="relationship",
                sealed=False,
                on_erasure="token",
            ),
        )
        nickname: Mapped[bytes | None] = mapped_column(
            LargeBinary, info=personal("NAME", purpose="relationship", retention="relationship")
        )
        secret: Mapped[bytes | None] = mapped_column(
            LargeBinary, info=personal("CREDENTIAL", purpose="relationship", retention="relationship")
        )
        colour: Mapped[str] = mapped_column(Text, info=plain())

    class GadgetLog(TenantRow):
        __tablename__ = "gadget_log"
        __subject__ = SubjectLink("contact", "gadget_id", via="gadgets")

        gadget_id: Mapped[UUID]
        said: Mapped[bytes] = mapped_column(
            LargeBinary, info=personal("TEXT", purpose="relationship", retention="trace", on_erasure="row")
        )

    registry.columns.cache_clear()
    yield Gadget
    for model in (Gadget, GadgetLog):
        Base.metadata.remove(model.__table__)  # type: ignore[arg-type]  # a Table, as all models here have
        del Base.registry._managers[model.__mapper__.class_manager]
    registry.columns.cache_clear()


def test_every_registered_column_is_under_a_rule_an_erasure_and_in_the_record() -> None:
    entries = registry.columns()
    assert {entry.name for entry in entries if entry.subject.kind in PEOPLE} == {
        entry.name for table in tables() for entry in table.columns
    }
    ways = {entry.name: way_of(entry) for entry in entries}
    assert {ways[entry.name] for entry in entries if entry.subject.kind in PEOPLE} <= {
        "thread",
        "contact",
        "steps",
        "age",
    }
    assert aged() == {}
    record = record_of("Acme", rules_of({}), (), datetime.now(UTC))
    assert sorted(place for activity in record.activities for place in activity.places) == sorted(ways)
    assert set(MEANINGS) == set(registry.RETENTION_DAYS)


def test_what_is_to_be_emptied_can_be_empty() -> None:
    for table in tables():
        for entry in table.columns:
            if entry.personal.on_erasure == "null" and not table.removed_whole:
                assert Base.metadata.tables[table.name].c[entry.column].nullable, entry.name


def test_a_removed_row_goes_before_the_one_it_refers_to() -> None:
    order = [table.name for table in tables()]
    assert order.index("attachments") < order.index("inbox_messages")
    assert STEPS.index("keys") < STEPS.index("files") < STEPS.index("rows")


async def test_a_new_model_follows_by_itself(
    own: Parts, business: TestTenant, job: PrivacyJob, gadgets: type[TenantRow]
) -> None:
    (gadget,) = (table for table in tables() if table.name == "gadgets")
    (log,) = (table for table in tables() if table.name == "gadget_log")
    assert gadget.shown == ("contact_id", "serial", "nickname", "colour", "id", "created_at")
    assert log.where == "gadget_id in (select id from gadgets where contact_id = :contact)"
    assert [name for name in (table.name for table in tables()) if name.startswith("gadget")] == [
        "gadget_log",
        "gadgets",
    ]
    assert list(aged()) == [("gadget_log", "trace")]
    record = record_of("Acme", rules_of({}), (), datetime.now(UTC))
    places = {
        place for activity in record.activities for place in activity.places if place.startswith("gadget")
    }
    assert places == {"gadget_log.said", "gadgets.nickname", "gadgets.secret", "gadgets.serial"}

    with psycopg.connect(libpq_url(own.storage.role_urls().admin or ""), autocommit=True) as connection:
        connection.execute("""
        create table gadgets (tenant_id uuid default (nullif(current_setting('app.tenant_id', true), '')::uuid), id uuid,
          created_at timestamptz default clock_timestamp(), contact_id uuid, serial text, nickname bytea, secret bytea, colour text)
        """)
        connection.execute("""
        create table gadget_log (tenant_id uuid default (nullif(current_setting('app.tenant_id', true), '')::uuid), id uuid,
          created_at timestamptz default clock_timestamp(), gadget_id uuid, said bytea)
        """)
        connection.execute("grant all on gadgets, gadget_log to secretary_app, secretary_platform")
    contact_id, other, ids = new_id(), new_id(), [new_id() for _ in range(2)]
    async with own.database.tenant_session(business.context) as session:
        for who, ident in zip((contact_id, other), ids, strict=True):
            await session.execute(text("insert into contacts (id) values (:id)"), {"id": who})
            await session.execute(
                text("""
                insert into gadgets (id, contact_id, serial, nickname, colour) values (:id, :contact, 'S-1', :nickname, 'red')
                """),
                {
                    "id": ident,
                    "contact": who,
                    "nickname": await session.cipher.seal(
                        "gadgets.nickname", ident, Subject.contact(who), "Bolt"
                    ),
                },
            )
            await session.execute(
                text("insert into gadget_log (id, gadget_id, said) values (:id, :gadget, '\\x01')"),
                {"id": new_id(), "gadget": ident},
            )
        scope = Scope(contact_id, ())
        before = await left_of(session, scope)
        counts = await job.erasure.forget_rows(session, scope)
        again = await job.erasure.forget_rows(session, scope)
        after = await left_of(session, scope)
        kept = (await session.execute(text("select serial, nickname is null from gadgets order by id"))).all()
        logs = list(await session.scalars(text("select gadget_id from gadget_log")))
    assert {name: count for name, count in before.items() if count} == {
        "gadget_log.said": 1, "gadgets.nickname": 1, "gadgets.serial": 1,
    }  # fmt: skip
    assert (counts["gadgets"], counts["gadget_log"]) == (1, 1)
    assert set(again.values()) == {0}
    assert set(after.values()) == {0}
    assert kept[0].serial.startswith("erased:")
    assert [tuple(row) for row in kept[1:]] == [("S-1", False)]
    assert logs == [ids[1]]


def test_rules_take_the_business_s_own_days_where_they_are_days() -> None:
    given = {
        "retention": {
            "conversation": 365,
            "trace": "x",
            "session": 0,
            "audit": 7,
            "account": 5,
            "relationship": 900,
        }
    }
    rules = rules_of(given)
    assert {key: rule.days for key, rule in rules.items()} == {
        "conversation": 365, "trace": 90, "relationship": 900, "account": None, "session": 30, "audit": 30, "operation": None,
    }  # fmt: skip
    assert {key for key, rule in rules.items() if rule.own} == {"conversation", "relationship", "audit"}
    assert rules_of(given, {"conversation": None})["conversation"].days is None
    assert {key: rule.days for key, rule in rules_of({"retention": 5}).items()} == dict(
        registry.RETENTION_DAYS
    )


def test_the_record_as_a_document() -> None:
    made_at = datetime(2026, 1, 2, tzinfo=UTC)
    record = record_of("A|B", rules_of({}), [Recipient("m | n", "texts", third_country=True)], made_at)
    document = markdown(record)
    assert "Controller: A\\|B\n" in document
    assert "| m \\| n | texts | to be checked |\n" in document
    assert "- Kept: conversation: 730 days." in document
    assert [line for line in document.splitlines() if line.startswith("## ")] == [
        "## conversation", "## relationship", "## staff_access", "## accountability", "## operation", "## Recipients",
        "## Technical and organisational measures (Art. 32)",
    ]  # fmt: skip
