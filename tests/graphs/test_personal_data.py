"""No model ever sees a customer's raw data, over 200 messages; every value comes back where it is needed."""

import json
import random
import re
from typing import Any

from server.deps import Parts
from storage.placeholders import PLACEHOLDER
from tests.sandbox.openai import OpenAISandbox
from tests.sandbox.openai_wire import Reply, ToolCall
from tests.support.personal import MAKERS, SENTENCES
from tests.support.world import TestTenant, answering, journal_of, make_visitor
from tools.crm import repository as crm

MESSAGES, THREADS = 200, 20


def obliging(request: dict[str, Any]) -> Reply:
    """A model that repeats all placeholders it sees: in the tool's arguments, then in its answer."""
    if request["model"] == "gpt-4o-mini":
        return Reply('{"agent": "sales", "confidence": 0.9, "language": "en"}')
    asked = next(message["content"] for message in reversed(request["messages"]) if message["role"] == "user")
    seen = " ".join(PLACEHOLDER.findall(asked))
    if request["messages"][-1]["role"] == "tool":
        return Reply(f"Noted: {seen}")
    mail = next(found for found in PLACEHOLDER.findall(asked) if found.startswith("⟦EMAIL"))
    return Reply(
        tool_calls=(
            ToolCall("crm_create_lead", {"subject": f"call about {seen}", "email": mail, "summary": seen}),
        )
    )


def messages(rng: random.Random) -> list[tuple[str, list[str]]]:
    """Texts in English and German with one e-mail address and one value of another kind each: (text, raw values)."""
    made = []
    kinds = [kind for kind in SENTENCES if kind != "EMAIL"]
    for number in range(MESSAGES):
        kind = kinds[number % len(kinds)]
        mail, value = MAKERS["EMAIL"](rng), MAKERS[kind](rng)
        made.append(
            (
                f"{rng.choice(SENTENCES['EMAIL']).format(mail)} {rng.choice(SENTENCES[kind]).format(value)}",
                [mail, value],
            )
        )
    return made


async def test_no_raw_value_in_any_request_and_every_argument_restored(
    scripted: OpenAISandbox, parts: Parts, tenant: TestTenant
) -> None:
    scripted.default(obliging)
    corpus = messages(random.Random(5))
    visitors = [await make_visitor(parts, tenant) for _ in range(THREADS)]
    async with answering(parts) as inbox:
        for number, (body, _) in enumerate(corpus):
            visitor = visitors[number % THREADS]
            await visitor.write(body)
            await inbox.drain(tenant.info.id, visitor.thread_id)

    sent = json.dumps(scripted.chat_requests(), ensure_ascii=False)
    flat = squeezed(sent)
    leaks = [value for _, values in corpus for value in values if value in sent or squeezed(value) in flat]
    assert leaks == []
    assert len(scripted.chat_requests()) == 3 * MESSAGES

    replies = [[reply.text or "" for reply in await visitor.replies()] for visitor in visitors]
    answers = [replies[number % THREADS][number // THREADS] for number in range(MESSAGES)]
    # A value that was written before may come back in the spelling of its first time.
    for (_, values), answer in zip(corpus, answers, strict=True):
        assert answer.startswith("Noted: ")
        assert not PLACEHOLDER.search(answer)
        for value in values:
            assert squeezed(value) in squeezed(answer)

    async with parts.database.tenant_session(tenant.context) as session:
        leads = await crm.list_leads(session, 10_000, None)
        stored = [str((step.request, step.response)) for step in await journal_of(session)]
    assert len(leads) == MESSAGES
    kept = squeezed(" ".join(f"{lead['title']} {lead['summary']}" for lead in leads))
    assert [value for _, values in corpus for value in values if squeezed(value) not in kept] == []
    assert not any(PLACEHOLDER.search(f"{lead['title']} {lead['summary']}") for lead in leads)
    journal = "".join(stored)
    assert [value for _, values in corpus for value in values if value in journal] == []


def squeezed(value: str) -> str:
    """Without blanks and dashes, in lower case: how a leak might be disguised."""
    return re.sub(r"[\s-]", "", value).lower()
