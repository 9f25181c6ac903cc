"""An archive holds everything of a person, nothing of anybody else, no secret, and says what it holds."""

import hashlib
import io
import json
import zipfile
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from server.deps import Parts
from server.jobs.privacy import EXPORT_LIFE, PrivacyJob
from storage.privacy.export import PAGE, safe_name
from storage.privacy.subjects import tables
from storage.repositories import privacy
from storage.sql import text
from tests.storage.privacy.person import Person, make_person
from tests.support.world import TestTenant
from tools.crm import repository as crm


async def exported(parts: Parts, job: PrivacyJob, person: Person) -> tuple[zipfile.ZipFile, dict[str, Any]]:
    async with parts.database.tenant_session(person.tenant.context) as session:
        request_id = await privacy.add_request(session, "export", person.contact_id, "user:test", "asked for")
    assert await job.drain() == 1
    return await fetched(parts, person, request_id)


async def fetched(parts: Parts, person: Person, request_id: UUID) -> tuple[zipfile.ZipFile, dict[str, Any]]:
    async with parts.database.tenant_session(person.tenant.context) as session:
        done = await privacy.request(session, request_id)
        content = await parts.files.read(person.tenant.context, session.cipher, done["file_id"])
    assert content is not None
    data = b"".join([chunk async for chunk in content])
    assert (len(data), hashlib.sha256(data).hexdigest()) == (done["result"]["size"], done["result"]["sha256"])
    return zipfile.ZipFile(io.BytesIO(data)), done


async def test_everything_of_the_person_and_nothing_of_the_other(
    own: Parts, business: TestTenant, job: PrivacyJob
) -> None:
    person = await make_person(own, business, "asks")
    other = await make_person(own, business, "other")
    made, done = await exported(own, job, person)
    assert made.testzip() is None
    everything = "".join(name + made.read(name).decode() for name in made.namelist())
    # An answer kept for a repeated request belongs to the business's program that asked, under the business's key.
    wanted = {place: canary for place, canary in person.canaries.items() if place != "stored_answer"}
    assert [place for place, canary in wanted.items() if canary not in everything] == []
    assert [place for place, canary in other.canaries.items() if canary in everything] == []
    assert [
        ident for ident in (other.contact_id, *other.threads, *other.files) if str(ident) in everything
    ] == []

    names = set(made.namelist())
    assert {f"data/{table.name}.json" for table in tables()} | {"data/checkpoints.json"} == {
        name for name in names if name.startswith("data/")
    }
    assert {name for name in names if name.startswith("files/")} == {
        f"files/{ident}/{person.canaries['file_name']}-{number}.txt"
        for number, ident in enumerate(person.files)
    }
    manifest = json.loads(made.read("manifest.json"))
    assert names == {*manifest["entries"], "manifest.json"}
    for name, entry in manifest["entries"].items():
        content = made.read(name)
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}, name
    assert (manifest["contact"], manifest["request"]) == (str(person.contact_id), str(done["id"]))
    assert manifest["counts"] == {
        "attachments": 2, "checkpoints": 2, "consents": 1, "contacts": 1, "inbox_messages": 4, "leads": 1, "notes": 2,
        "pii_vault": 2, "threads": 2, "turn_steps": 2,
    }  # fmt: skip
    assert manifest["schema"] == await own.database.ping()
    assert made.read("readme.txt").decode().startswith("Dieses Archiv enthält, was Acme")
    (contact,) = json.loads(made.read("data/contacts.json"))
    assert {key: contact[key] for key in ("name", "email", "phone", "company")} == {
        key: person.canaries[key] for key in ("name", "email", "phone", "company")
    }
    assert datetime.fromisoformat(contact["created_at"]).tzinfo is not None
    assert not {"email_bi", "phone_bi", "tenant_id"} & set(contact)
    assert done["expires_at"] - done["finished_at"] == pytest.approx(EXPORT_LIFE, abs=timedelta(seconds=1))


async def test_a_long_table_is_whole_and_in_order(own: Parts, business: TestTenant, job: PrivacyJob) -> None:
    person = await make_person(own, business, "long")
    async with own.database.tenant_session(business.context) as session:
        added = [
            str(await crm.add_note(session, person.contact_id, "user:test", f"note {number}"))
            for number in range(2 * PAGE)
        ]
    made, _ = await exported(own, job, person)
    notes = json.loads(made.read("data/notes.json"))
    assert [note["id"] for note in notes][2:] == added
    assert [note["text"] for note in notes][2:] == [f"note {number}" for number in range(2 * PAGE)]


async def test_an_archive_that_was_begun_is_made_again_under_the_same_name(
    own: Parts, business: TestTenant, job: PrivacyJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As a kill."""

    person = await make_person(own, business, "asks")
    async with own.database.tenant_session(business.context) as session:
        request_id = await privacy.add_request(session, "export", person.contact_id, "user:test", "asked for")
    original = own.files.put_sealed

    async def killed(*args: Any) -> Any:
        await original(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(own.files, "put_sealed", killed)
        with pytest.raises(Killed):
            await job.drain()
    async with own.database.tenant_session(business.context) as session:
        begun = await privacy.request(session, request_id)
        await session.execute(text("update privacy_requests set lease_until = null"))
    assert begun["state"] == "pending"
    assert await job.drain() == 1
    made, done = await fetched(own, person, request_id)
    assert done["file_id"] == begun["file_id"]
    assert made.testzip() is None


async def test_an_erasure_takes_the_archive_with_it(
    own: Parts, business: TestTenant, job: PrivacyJob
) -> None:
    person = await make_person(own, business, "asks")
    _, done = await exported(own, job, person)
    async with own.database.tenant_session(business.context) as session:
        waiting = await privacy.add_request(session, "export", person.contact_id, "user:test", "once more")
        await session.execute(
            text(
                "update privacy_requests set lease_until = clock_timestamp() + interval '1 hour' where id = :id"
            ),
            {"id": waiting},
        )
        await privacy.add_request(session, "erasure", person.contact_id, "user:test", "asked for")
    assert await job.drain() == 1
    assert not await own.files.delete(business.context, done["file_id"])
    async with own.database.tenant_session(business.context) as session:
        ended = await privacy.request(session, waiting)
    assert (ended["state"], ended["last_error"]) == ("failed", "erased")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("invoice.pdf", "invoice.pdf"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "file"),
        ("C:\\a\x00b", "C__a_b"),
        ("Ünï.txt", "Ünï.txt"),
        ("x" * 300, "x" * 150),
    ],
)
def test_names_in_an_archive_lead_nowhere(name: str, safe: str) -> None:
    assert safe_name(name) == safe
