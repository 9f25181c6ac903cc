"""Contacts, leads, notes and pipelines over REST."""

from uuid import uuid4

import httpx
from sqlalchemy import text

from server.deps import Parts
from tests.support.world import TestTenant, count

CRM = "/api/v1/crm"


async def test_a_contact_is_found_or_made_and_filled_up(
    client: httpx.AsyncClient, staff: dict[str, str], parts: Parts, tenant: TestTenant
) -> None:
    made = await client.post(f"{CRM}/contacts", json={"email": " Anna@Example.org "}, headers=staff)
    assert made.status_code == 201
    contact = made.json()
    assert (contact["email"], contact["name"]) == ("anna@example.org", None)
    more = {"email": "anna@example.org", "name": "Anna", "phone": "0512 123456"}
    filled = (await client.post(f"{CRM}/contacts", json=more, headers=staff)).json()
    assert (filled["id"], filled["name"], filled["phone"]) == (contact["id"], "Anna", "+43512123456")
    other = (
        await client.post(f"{CRM}/contacts", json={"phone": "+43512123456", "name": "Berta"}, headers=staff)
    ).json()
    assert (other["id"], other["name"]) == (contact["id"], "Anna")  # what is known stays
    assert (await client.get(f"{CRM}/contacts/{contact['id']}", headers=staff)).json() == filled
    assert (await client.get(f"{CRM}/contacts", headers=staff)).json() == [filled]
    for wrong in ({}, {"email": ""}, {"email": "anna"}, {"phone": "12"}, {"phone": "call me"}):
        answer = await client.post(f"{CRM}/contacts", json=wrong, headers=staff)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "VALIDATION_ERROR"), wrong
    assert await count(parts, tenant, "contacts") == 1


async def test_a_lead_begins_in_the_first_stage(
    client: httpx.AsyncClient, staff: dict[str, str], parts: Parts, tenant: TestTenant
) -> None:
    contact = (await client.post(f"{CRM}/contacts", json={"email": "a@b.example"}, headers=staff)).json()
    body = {"contact_id": contact["id"], "title": " Cargo bike ", "summary": "for a family"}
    made = await client.post(f"{CRM}/leads", json=body, headers=staff)
    assert made.status_code == 201
    lead = made.json()
    assert (lead["title"], lead["stage"], lead["contact_id"]) == ("Cargo bike", "New", contact["id"])
    assert (await client.get(f"{CRM}/leads/{lead['id']}", headers=staff)).json() == lead
    assert (await client.get(f"{CRM}/leads", headers=staff)).json() == [lead]
    (pipeline,) = (await client.get(f"{CRM}/pipelines", headers=staff)).json()
    assert [stage["name"] for stage in pipeline["stages"]] == ["New", "Contacted", "Offer", "Won", "Lost"]
    nobody = await client.post(f"{CRM}/leads", json={**body, "contact_id": str(uuid4())}, headers=staff)
    untitled = await client.post(f"{CRM}/leads", json={**body, "title": " "}, headers=staff)
    assert (nobody.status_code, untitled.status_code) == (404, 422)
    assert await count(parts, tenant, "leads") == 1


async def test_notes_of_a_contact(
    client: httpx.AsyncClient, staff: dict[str, str], parts: Parts, tenant: TestTenant
) -> None:
    contact = (await client.post(f"{CRM}/contacts", json={"email": "a@b.example"}, headers=staff)).json()
    address = f"{CRM}/contacts/{contact['id']}/notes"
    me = (await client.get("/api/v1/auth/me", headers=staff)).json()
    made = [
        (await client.post(address, json={"text": f" note {n} "}, headers=staff)).json() for n in range(2)
    ]
    assert [(note["text"], note["author"]) for note in made] == [(f"note {n}", me["actor"]) for n in range(2)]
    assert (await client.get(address, headers=staff)).json() == made[::-1]
    empty = await client.post(address, json={"text": " "}, headers=staff)
    assert empty.status_code == 422
    assert await count(parts, tenant, "notes") == 2
    async with parts.database.tenant_session(tenant.context) as session:
        done = list(await session.scalars(text("select action from audit_log order by id")))
    assert done == ["contact.saved", "note.added", "note.added", "contact.notes_read"]
