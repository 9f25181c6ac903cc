"""One turn on real parts: PostgreSQL, the graph, the tools; only the model is scripted."""

import json

from server.deps import Parts
from tests.sandbox.openai import OpenAISandbox, Reply, ToolCall
from tests.support.world import TestTenant, Visitor, answering, count
from tools.crm import repository as crm


def routed(agent: str) -> str:
    return json.dumps({"agent": agent, "confidence": 0.9, "language": "en"})


async def test_a_lead_is_made_and_the_model_never_sees_the_address(
    scripted: OpenAISandbox, parts: Parts, tenant: TestTenant, visitor: Visitor
) -> None:
    call = ToolCall("crm_create_lead", {"subject": "cargo bike for ⟦EMAIL_1⟧", "email": "⟦EMAIL_1⟧"})
    scripted.script(routed("sales"), Reply(tool_calls=(call,)), "We will write to ⟦EMAIL_1⟧ soon.")
    await visitor.write("Please send me an offer for a cargo bike: anna.berger@example.org")
    async with answering(parts) as inbox:
        await inbox.drain(tenant.info.id, visitor.thread_id)

    (reply,) = await visitor.replies()
    assert reply.text == "We will write to anna.berger@example.org soon."
    assert (reply.agent, reply.language, reply.seq) == ("sales", "en", 2)
    async with parts.database.tenant_session(tenant.context) as session:
        (lead,) = await crm.list_leads(session, 10, None)
        contact = await crm.contact_by_id(session, lead["contact_id"])
    assert contact is not None
    assert (lead["title"], contact["email"]) == (
        "cargo bike for anna.berger@example.org",
        "anna.berger@example.org",
    )
    assert await count(parts, tenant, "usage_events") == 1
    assert "anna.berger" not in json.dumps(scripted.chat_requests())
    scripted.verify()
