"""The inbox for staff: what was said, what happened inside, what was given up, who answers."""

import json
from uuid import uuid4

import httpx
from sqlalchemy import text

from server.deps import Parts
from storage.repositories import claims, inbox
from tests.sandbox.openai import OpenAISandbox, Reply, ToolCall
from tests.support.world import TestTenant, Visitor, answering, count

API = "/api/v1/inbox"
EMAIL = "anna.berger@example.org"
ROUTED = '{"agent": "sales", "confidence": 0.9, "language": "en"}'


async def test_a_turn_as_staff_sees_it(
    scripted: OpenAISandbox,
    client: httpx.AsyncClient,
    staff: dict[str, str],
    parts: Parts,
    tenant: TestTenant,
    visitor: Visitor,
) -> None:
    call = ToolCall("crm_create_lead", {"subject": "an offer", "email": "⟦EMAIL_1⟧"})
    scripted.script(ROUTED, Reply(tool_calls=(call,)), "We will write to ⟦EMAIL_1⟧.")
    received = await visitor.write(f"Please write to {EMAIL}")
    async with answering(parts) as job:
        await job.drain(tenant.info.id, visitor.thread_id)

    (thread,) = (await client.get(f"{API}/threads", headers=staff)).json()
    assert (thread["id"], thread["last_seq"], thread["agent"]) == (str(visitor.thread_id), 2, "sales")
    assert (await client.get(f"{API}/threads/{visitor.thread_id}", headers=staff)).json() == thread
    asked, reply = (await client.get(f"{API}/threads/{visitor.thread_id}/messages", headers=staff)).json()
    assert (asked["id"], asked["text"], asked["state"]) == (
        str(received.message_id),
        f"Please write to {EMAIL}",
        "answered",
    )
    assert (reply["text"], reply["seq"], reply["in_reply_to"]) == (
        f"We will write to {EMAIL}.",
        2,
        asked["id"],
    )
    later = await client.get(f"{API}/threads/{visitor.thread_id}/messages?after=1", headers=staff)
    assert later.json() == [reply]
    assert (await client.get(f"{API}/messages/{reply['id']}", headers=staff)).json() == reply

    trace = await client.get(f"{API}/messages/{asked['id']}/trace", headers=staff)
    steps = trace.json()["steps"]
    assert [step["ordinal"] for step in steps] == list(range(len(steps)))
    assert [(step["kind"], step["name"]) for step in steps if step["kind"] == "tool"] == [
        ("tool", "crm_create_lead")
    ]
    assert sum(step["kind"] == "model" for step in steps) == 3
    assert "⟦EMAIL_1⟧" in trace.text
    assert EMAIL not in trace.text
    same = await client.get(f"{API}/messages/{reply['id']}/trace", headers=staff)
    assert same.json()["steps"] == steps
    async with parts.database.tenant_session(tenant.context) as session:
        read = list(
            await session.scalars(text("select action from audit_log where actor like 'user:%' order by id"))
        )
    assert read == [
        "thread.read",
        "thread.read",
        "message.read",
        "message.trace_read",
        "message.trace_read",
    ]


async def test_a_message_without_a_turn_has_an_empty_trace(
    client: httpx.AsyncClient, staff: dict[str, str], visitor: Visitor
) -> None:
    received = await visitor.write("hello")
    trace = (await client.get(f"{API}/messages/{received.message_id}/trace", headers=staff)).json()
    assert trace == {"message_id": str(received.message_id), "turn_id": None, "state": "pending", "steps": []}


async def test_a_dead_letter_is_listed_and_replayed_once(
    scripted: OpenAISandbox,
    client: httpx.AsyncClient,
    staff: dict[str, str],
    parts: Parts,
    tenant: TestTenant,
    visitor: Visitor,
) -> None:
    received = await visitor.write("hello")
    async with parts.database.tenant_session(tenant.context) as session:
        claim = await claims.claim(session, visitor.thread_id, fence=uuid4(), lease_seconds=5)
        assert claim is not None
        await inbox.fail(session, claim, "it broke", retry_in=None)
    (letter,) = (await client.get(f"{API}/dead-letters", headers=staff)).json()
    assert (letter["id"], letter["kind"], letter["last_error"]) == (
        str(received.message_id),
        "inbox",
        "it broke",
    )
    waiting = await client.get(f"{API}/threads?needs_human=true", headers=staff)
    assert [thread["id"] for thread in waiting.json()] == [str(visitor.thread_id)]
    address = f"{API}/dead-letters/inbox/{letter['id']}/replay"
    assert (await client.post(address, headers=staff)).status_code == 202
    again = await client.post(address, headers=staff)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "CONFLICT")
    other = await client.post(f"{API}/dead-letters/elsewhere/{letter['id']}/replay", headers=staff)
    assert other.status_code in (400, 404)
    assert (await client.get(f"{API}/dead-letters", headers=staff)).json() == []
    scripted.script(ROUTED, "Here I am.")
    async with answering(parts) as job:
        await job.drain(tenant.info.id, visitor.thread_id)
    assert [reply.text for reply in await visitor.replies()] == ["Here I am."]
    assert await count(parts, tenant, "usage_events") == 1


async def test_a_person_takes_over_and_gives_back(
    scripted: OpenAISandbox,
    client: httpx.AsyncClient,
    staff: dict[str, str],
    parts: Parts,
    tenant: TestTenant,
    visitor: Visitor,
) -> None:
    address = f"{API}/threads/{visitor.thread_id}/handler"
    taken = await client.post(address, json={"handler": "human"}, headers=staff)
    assert (taken.status_code, taken.json()["handler"]) == (200, "human")
    await visitor.write("Is anybody there?")
    async with answering(parts) as job:
        await job.drain(tenant.info.id, visitor.thread_id)
        assert await visitor.replies() == []
        assert scripted.chat_requests() == []
        for wrong in ({"handler": "robot"}, {}, {"handler": "agent", "x": 1}):
            assert (await client.post(address, json=wrong, headers=staff)).status_code == 400
        back = await client.post(address, json={"handler": "agent"}, headers=staff)
        assert (back.json()["handler"], back.json()["needs_human_at"]) == ("agent", None)
        scripted.script(ROUTED, "Now I am.")
        await visitor.write("And now?")
        await job.drain(tenant.info.id, visitor.thread_id)
    assert [json.dumps(reply.text) for reply in await visitor.replies()] == ['"Now I am."']
