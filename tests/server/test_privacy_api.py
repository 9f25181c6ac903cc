"""Privacy over REST: who may ask for what, and what they get."""

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from litestar import Litestar

from server.deps import Parts
from server.jobs.privacy import PrivacyJob, forget_keys, opened_privacy
from storage.crypto.cipher import Subject
from storage.privacy.erasure import FORGET_CHANNEL
from storage.registry import RETENTION_DAYS
from storage.repositories import audit, privacy
from storage.sql import text
from storage.tenancy import TenantContext
from tests.support.edge import header_of, signed_in, someone
from tests.support.world import TestTenant
from tools.crm import repository as crm

PRIVACY = "/api/v1/privacy"
ALL = ("privacy:read", "privacy:write", "privacy:export", "privacy:erase", "crm:read")


@pytest.fixture
async def job(parts: Parts) -> AsyncIterator[PrivacyJob]:
    async with opened_privacy(parts.database, parts.files, parts.bus, parts.storage) as made:
        yield made


@pytest.fixture
def officer(app: Litestar, tenant: TestTenant) -> dict[str, str]:
    return signed_in(app, tenant, ALL)


@pytest.fixture
async def contact(parts: Parts, tenant: TestTenant) -> UUID:
    async with parts.database.tenant_session(tenant.context) as session:
        made = await crm.add_contact(session, {"name": "Anna Canary", "email": "anna@canary.example"})
    assert made is not None
    return made


def asked(contact: UUID, kind: str) -> dict[str, str]:
    return {"kind": kind, "contact_id": str(contact), "reason": "they asked for it by mail"}


async def entries(parts: Parts, tenant: TestTenant) -> list[str]:
    async with parts.database.tenant_session(TenantContext(tenant.info.id, "user:test")) as session:
        return [entry["action"] for entry in reversed(await audit.search(session))]


async def test_an_export_is_asked_for_made_and_fetched(
    client: httpx.AsyncClient,
    officer: dict[str, str],
    app: Litestar,
    parts: Parts,
    tenant: TestTenant,
    other_tenant: TestTenant,
    contact: UUID,
    job: PrivacyJob,
) -> None:
    answer = await client.post(f"{PRIVACY}/requests", json=asked(contact, "export"), headers=officer)
    assert answer.status_code == 202
    request = answer.json()
    assert (request["state"], request["kind"], request["result"]) == ("pending", "export", {})
    address = f"{PRIVACY}/requests/{request['id']}"
    again = await client.post(f"{PRIVACY}/requests", json=asked(contact, "export"), headers=officer)
    assert (again.status_code, again.json()["error"]["details"]) == (409, {"request_id": request["id"]})
    assert (await client.get(f"{address}/file", headers=officer)).status_code == 404

    assert await job.drain() == 1
    done = (await client.get(address, headers=officer)).json()
    assert (done["state"], (await client.get(f"{PRIVACY}/requests", headers=officer)).json()) == (
        "done",
        [done],
    )
    assert "file_id" not in done
    file = await client.get(f"{address}/file", headers=officer)
    assert file.status_code == 200
    assert file.headers["content-type"] == "application/zip"
    assert file.headers["content-disposition"].startswith(
        f'attachment; filename="export-{request["id"]}.zip"'
    )
    assert file.headers["cache-control"] == "private, no-store"
    assert hashlib.sha256(file.content).hexdigest() == done["result"]["sha256"]
    archive = zipfile.ZipFile(io.BytesIO(file.content))
    assert json.loads(archive.read("data/contacts.json"))[0]["email"] == "anna@canary.example"
    assert await entries(parts, tenant) == [
        "privacy.export.requested",
        "privacy.export.done",
        "privacy.export.read",
    ]

    stranger = signed_in(app, other_tenant, ALL)
    for path in (address, f"{address}/file"):
        foreign = await client.get(path, headers=stranger)
        missing = await client.get(path.replace(request["id"], str(uuid4())), headers=stranger)
        assert (foreign.status_code, missing.status_code) == (404, 404)
        assert foreign.json()["error"]["message"] == missing.json()["error"]["message"]
    asking = await client.post(f"{PRIVACY}/requests", json=asked(contact, "export"), headers=stranger)
    assert asking.status_code == 404

    async with parts.database.tenant_session(tenant.context) as session:
        await session.execute(text("update privacy_requests set expires_at = clock_timestamp()"))
    assert (await client.get(f"{address}/file", headers=officer)).status_code == 404


async def test_an_erasure_ends_with_a_certificate(
    client: httpx.AsyncClient,
    officer: dict[str, str],
    parts: Parts,
    tenant: TestTenant,
    contact: UUID,
    job: PrivacyJob,
) -> None:
    answer = await client.post(f"{PRIVACY}/requests", json=asked(contact, "erasure"), headers=officer)
    assert answer.status_code == 202
    assert await job.drain() == 1
    done = (await client.get(f"{PRIVACY}/requests/{answer.json()['id']}", headers=officer)).json()
    assert (done["state"], done["result"]["rows"]["contacts"], len(done["result"]["keys"])) == ("done", 1, 1)
    assert set(done["result"]["verification"]["left"].values()) == {0}
    assert "Canary" not in json.dumps(done)
    for kind in ("export", "erasure"):
        again = await client.post(f"{PRIVACY}/requests", json=asked(contact, kind), headers=officer)
        assert again.status_code == 404
    assert await entries(parts, tenant) == ["privacy.erasure.requested", "privacy.erasure.done"]


@pytest.mark.parametrize(("kind", "right"), [("export", "privacy:export"), ("erasure", "privacy:erase")])
async def test_asking_wants_the_right_and_a_fresh_proof(
    client: httpx.AsyncClient,
    app: Litestar,
    tenant: TestTenant,
    contact: UUID,
    parts: Parts,
    kind: str,
    right: str,
) -> None:
    without = tuple(scope for scope in ALL if scope != right)
    refused = await client.post(
        f"{PRIVACY}/requests", json=asked(contact, kind), headers=signed_in(app, tenant, without)
    )
    assert (refused.status_code, refused.json()["error"]["details"]) == (403, {"missing_scopes": [right]})
    person = someone(app, tenant, ALL)
    async with parts.database.identity_session() as session:
        await session.execute(
            text(
                "update sessions set authenticated_at = clock_timestamp() - interval '11 min' where id = :id"
            ),
            {"id": person.session_id},
        )
    stale = await client.post(
        f"{PRIVACY}/requests", json=asked(contact, kind), headers=header_of(app, person)
    )
    assert (stale.status_code, stale.json()["error"]["details"]) == (403, {"reason": "step_up"})
    async with parts.database.tenant_session(tenant.context) as session:
        assert await privacy.requests(session, contact_id=None, before=None, limit=1) == []


async def test_a_legal_hold_forbids_erasure_until_it_is_lifted(
    client: httpx.AsyncClient, officer: dict[str, str], parts: Parts, tenant: TestTenant, contact: UUID
) -> None:
    address = f"{PRIVACY}/contacts/{contact}/legal-hold"
    held = await client.put(address, json={"reason": "a lawsuit is open"}, headers=officer)
    assert (held.status_code, held.json()) == (
        200,
        {"contact_id": str(contact), "legal_hold": "a lawsuit is open"},
    )
    refused = await client.post(f"{PRIVACY}/requests", json=asked(contact, "erasure"), headers=officer)
    assert (refused.status_code, refused.json()["error"]["details"]) == (409, {"legal_hold": True})
    assert (await client.put(address, json={"reason": ""}, headers=officer)).status_code in (400, 422)
    assert (await client.delete(address, headers=officer)).status_code in (400, 422)
    lifted = await client.delete(address, params={"reason": "the lawsuit is over"}, headers=officer)
    assert (lifted.status_code, lifted.json()["legal_hold"]) == (200, None)
    allowed = await client.post(f"{PRIVACY}/requests", json=asked(contact, "erasure"), headers=officer)
    assert allowed.status_code == 202
    missing = f"{PRIVACY}/contacts/{uuid4()}/legal-hold"
    assert (await client.put(missing, json={"reason": "for nobody"}, headers=officer)).status_code == 404
    assert await entries(parts, tenant) == [
        "legal_hold.set",
        "legal_hold.lifted",
        "privacy.erasure.requested",
    ]


async def test_consents_are_added_and_never_changed(
    client: httpx.AsyncClient,
    officer: dict[str, str],
    app: Litestar,
    parts: Parts,
    tenant: TestTenant,
    contact: UUID,
) -> None:
    address = f"{PRIVACY}/contacts/{contact}/consents"
    given = {
        "purpose": "newsletter", "basis": "consent", "state": "granted", "source": "web form",
        "evidence": "Yes, I want it.\nAnna",
    }  # fmt: skip
    first = await client.post(address, json=given, headers=officer)
    assert first.status_code == 201
    withdrawn = {**given, "state": "withdrawn", "evidence": None}
    second = await client.post(address, json=withdrawn, headers=officer)
    third = await client.post(address, json={**given, "purpose": "profiling"}, headers=officer)
    listed = (await client.get(address, headers=officer)).json()
    assert [(row["id"], row["state"], row["current"]) for row in listed] == [
        (third.json()["id"], "granted", True),
        (second.json()["id"], "withdrawn", True),
        (first.json()["id"], "granted", False),
    ]
    assert listed[2]["evidence"] == "Yes, I want it.\nAnna"
    page = await client.get(address, params={"before": listed[0]["id"], "limit": 1}, headers=officer)
    assert [row["id"] for row in page.json()] == [listed[1]["id"]]
    blind = signed_in(app, tenant, ("privacy:read",))
    assert {row["evidence"] for row in (await client.get(address, headers=blind)).json()} == {None}
    assert (await client.post(address, json=given, headers=blind)).status_code == 403
    wrong: list[dict[str, Any]] = [
        {**given, "basis": "because"},
        {**given, "state": "maybe"},
        {**given, "more": 1},
    ]
    for body in wrong:
        assert (await client.post(address, json=body, headers=officer)).status_code in (400, 422)
    nobody = f"{PRIVACY}/contacts/{uuid4()}/consents"
    assert (await client.get(nobody, headers=officer)).status_code == 404
    assert (await client.post(nobody, json=given, headers=officer)).status_code == 404
    async with parts.database.tenant_session(tenant.context) as session:
        stored = list(await session.scalars(text("select evidence from consents where evidence is not null")))
    assert all(b"Anna" not in bytes(blob) for blob in stored)
    assert (await entries(parts, tenant))[:3] == ["consent.granted", "consent.withdrawn", "consent.granted"]


async def test_retention_shows_its_rules_and_tries_others(
    client: httpx.AsyncClient, officer: dict[str, str], parts: Parts, tenant: TestTenant
) -> None:
    async with parts.database.identity_session() as session:
        await session.execute(
            text("""update tenants set settings = '{"retention": {"conversation": 365}}' where id = :id"""),
            {"id": tenant.info.id},
        )
    rules = (await client.get(f"{PRIVACY}/retention", headers=officer)).json()
    assert {rule["key"]: rule["days"] for rule in rules} == {**RETENTION_DAYS, "conversation": 365}
    assert [rule["key"] for rule in rules if rule["source"] == "tenant"] == ["conversation"]
    async with parts.database.tenant_session(tenant.context) as session:
        await session.execute(
            text("""
            insert into threads (id, channel_id, external_id, epoch, created_at)
            values (:id, :channel, 'visitor', 'x', clock_timestamp() - interval '100 days')
            """),
            {"id": uuid4(), "channel": tenant.channel.id},
        )
    address = f"{PRIVACY}/retention/preview"
    as_it_is = await client.post(address, json={}, headers=officer)
    assert (as_it_is.status_code, as_it_is.json()["counts"]["conversation"]) == (200, {"threads": 0})
    tried = await client.post(address, json={"days": {"conversation": 90}}, headers=officer)
    assert tried.json()["counts"]["conversation"] == {"threads": 1}
    assert (
        tried.json()
        == (await client.post(address, json={"days": {"conversation": 90}}, headers=officer)).json()
    )
    assert (await client.post(address, json={"days": {"nothing": 1}}, headers=officer)).status_code == 404
    assert (await client.post(address, json={"days": {"trace": 0}}, headers=officer)).status_code in (
        400,
        422,
    )


async def test_the_record_of_processing_as_data_and_as_a_document(
    client: httpx.AsyncClient, officer: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{PRIVACY}/record-of-processing"
    made = (await client.get(address, headers=officer)).json()
    assert made["controller"] == "Acme"
    assert not any(who["third_country"] for who in made["recipients"])
    monkeypatch.setenv("OPENAI_BASE_URL", "https://user:hunter2@models.example/v1")
    monkeypatch.setenv("MAIL_URL", "smtps://user:hunter2@mail.example:465")
    document = await client.get(address, headers={**officer, "accept": "text/markdown"})
    assert document.headers["content-type"].startswith("text/markdown")
    assert "model provider (models.example)" in document.text
    assert "mail server (mail.example)" in document.text
    assert "hunter2" not in document.text


async def test_a_process_drops_keys_that_another_has_destroyed(parts: Parts, tenant: TestTenant) -> None:
    keyring = parts.database.keyring
    assert keyring is not None
    async with parts.database.tenant_session(tenant.context) as session:
        await session.cipher.local(Subject.thread(uuid4()))
    async with parts.database.tenant_session(tenant.context) as session:
        (row,) = (
            await session.execute(text("select id, subject_id from data_keys where subject_kind = 'thread'"))
        ).all()
        await session.cipher.local(Subject.thread(row.subject_id))
    assert keyring.get(tenant.info.id, row.id) is not None
    await forget_keys(parts.bus, keyring)
    async with asyncio.timeout(10):
        while keyring.get(tenant.info.id, row.id) is not None:  # the subscription is on its way
            await parts.bus.publish(FORGET_CHANNEL, {"keys": [str(row.id)]})
            await asyncio.sleep(0.02)
