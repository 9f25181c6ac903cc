"""What the tests of the offline model share: tools as the registry would offer them, and a way to ask."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from agents.models import Task
from agents.offline import offline_models
from agents.offline_examples import ExampleLibrary

PROMPTS = Path(__file__).parents[2] / "prompts"
SYSTEM = SystemMessage("You help customers of Alpenrad. Today is 2026-11-23.")


def spec(name: str, properties: dict[str, Any], *required: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


def optional(**more: Any) -> dict[str, Any]:
    return {"anyOf": [{"type": "string", **more}, {"type": "null"}], "default": None}


SEARCH = spec("knowledge_search", {"query": {"type": "string"}}, "query")
NOTE = spec("crm_add_note", {"text": {"type": "string", "x-pii": "TEXT", "maxLength": 2000}}, "text")
FIND = spec(
    "crm_find_contact", {"email": optional(**{"x-pii": "EMAIL"}), "phone": optional(**{"x-pii": "PHONE"})}
)
LEAD = spec(
    "crm_create_lead",
    {
        "subject": {"type": "string", "x-pii": "TEXT", "maxLength": 200},
        "email": optional(**{"x-pii": "EMAIL"}),
        "phone": optional(**{"x-pii": "PHONE"}),
        "name": optional(**{"x-pii": "PERSON"}),
    },
    "subject",
)
TOOLS = [LEAD, NOTE, FIND, SEARCH]
PERSON = spec("call_person", {"reason": {"type": "string"}}, "reason")
LEAD_CREATED = "Thank you, I have noted your interest. Someone from our team will get in touch with you."
HANDOFF_EN = (
    "I do not have a reliable answer to that. I will pass this to a person, who will get back to you."
)


class Model:
    """The model under test for one language, asked as the graph asks it."""

    def __init__(self, library: ExampleLibrary, embedder: Any) -> None:
        self.make = offline_models(library, embedder)

    async def __call__(
        self, *messages: BaseMessage | str, language: str = "en", tools: Sequence[dict[str, Any]] = TOOLS
    ) -> AIMessage:
        history = [HumanMessage(each) if isinstance(each, str) else each for each in messages]
        bound = self.make(Task("answer", "sales", language)).bind_tools(tools)
        return await bound.ainvoke([SYSTEM, *history])


def called(answer: AIMessage) -> tuple[str, dict[str, Any]] | str:
    """The one call as (name, arguments), or the text where there is none."""
    if not answer.tool_calls:
        return str(answer.content)
    [call] = answer.tool_calls
    assert answer.content == ""
    assert call["id"]
    return call["name"], call["args"]


def after(name: str, arguments: dict[str, Any], result: Any) -> list[BaseMessage]:
    content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    call = {"name": name, "args": arguments, "id": "c1", "type": "tool_call"}
    return [AIMessage(content="", tool_calls=[call]), ToolMessage(content, tool_call_id="c1")]


def quoted(passage: str, sentence: str) -> str:
    """A sentence with its citation; only the citation keeps the line breaks of the source."""
    return f'{" ".join(sentence.split())} [{passage}: "{sentence}"]'


def found(question: str, *texts: str) -> list[BaseMessage]:
    passages = [
        {"id": f"K{at}", "document": "Preise", "page": 1, "text": text, "score": 0.5}
        for at, text in enumerate(texts, 1)
    ]
    return after("knowledge_search", {"query": question}, {"passages": passages})
