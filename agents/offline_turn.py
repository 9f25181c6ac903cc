"""The messages of a conversation as the offline model reads them, and what it decides."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from agents.offline_passages import parse

TODAY = re.compile(r"Today is (\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True)
class Decision:
    """Either a text, or one tool call as (name, arguments)."""

    text: str = ""
    call: tuple[str, dict[str, Any]] | None = None


@dataclass(frozen=True)
class ToolResult:
    """One tool's answer; `value` is its parsed JSON, None where it is none."""

    name: str
    content: str
    value: Any


@dataclass(frozen=True)
class Turn:
    """The current turn: from the customer's last message on.

    Attributes:
        question: the customer's last message.
        earlier: the customer's messages before it, newest first.
        called: the calls made in this turn so far.
        results: the answers to the calls of the last step; empty before the first call.
        today: from the system's line `Today is 2026-11-23.`
    """

    question: str
    earlier: tuple[str, ...]
    called: tuple[tuple[str, dict[str, Any]], ...]
    results: tuple[ToolResult, ...]
    today: date | None

    @classmethod
    def read(cls, messages: Sequence[BaseMessage]) -> "Turn":
        humans = [at for at, message in enumerate(messages) if isinstance(message, HumanMessage)]
        last = humans[-1] if humans else len(messages)
        calls: dict[str | None, tuple[str, dict[str, Any]]] = {}
        results: list[ToolResult] = []
        for message in messages[last:]:
            if isinstance(message, AIMessage):
                results = []
                calls |= {call["id"]: (call["name"], call["args"]) for call in message.tool_calls}
            elif isinstance(message, ToolMessage):
                name = calls[message.tool_call_id][0] if message.tool_call_id in calls else message.name or ""
                content = str(message.text)
                results.append(ToolResult(name, content, parse(content)))
        return cls(
            question=str(messages[last].text) if humans else "",
            earlier=tuple(str(messages[at].text) for at in reversed(humans[:-1])),
            called=tuple(calls.values()),
            results=tuple(results),
            today=_today(messages),
        )


def _today(messages: Sequence[BaseMessage]) -> date | None:
    for message in messages:
        if isinstance(message, SystemMessage) and (match := TODAY.search(str(message.text))):
            return date.fromisoformat(match[1])
    return None
