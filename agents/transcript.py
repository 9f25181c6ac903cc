"""Messages as JSON: what the journal keeps of a request, and how an answer comes back out of it."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage


def as_json(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Role, text and tool calls of each message, in order."""
    rows = []
    for message in messages:
        row: dict[str, Any] = {"role": message.type, "content": str(message.text)}
        if isinstance(message, AIMessage) and message.tool_calls:
            row["tool_calls"] = calls_of(message)
        if isinstance(message, ToolMessage):
            row["tool_call_id"] = message.tool_call_id
        rows.append(row)
    return rows


def calls_of(message: AIMessage) -> list[dict[str, Any]]:
    return [{"id": call["id"], "name": call["name"], "args": call["args"]} for call in message.tool_calls]


def answer_from(response: dict[str, Any]) -> AIMessage:
    """The model's answer out of its journal row."""
    calls = [{"type": "tool_call", **call} for call in response["tool_calls"]]
    return AIMessage(content=response["content"], tool_calls=calls)
