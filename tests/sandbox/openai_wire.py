"""Shapes of the OpenAI wire: what a request must hold, and how an answer looks whole and in pieces.

Source of the shapes: the OpenAI API reference for /v1/chat/completions, /v1/embeddings and /v1/moderations,
and what openai-python 3.x and langchain-openai 1.7 parse.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
ROLES = frozenset({"developer", "system", "user", "assistant", "tool", "function"})
MODERATION_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent",
    "self-harm", "self-harm/intent", "self-harm/instructions", "sexual",
    "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


class InvalidRequestError(Exception):
    """The request breaks a rule that the real API answers with 400."""


@dataclass(frozen=True)
class ToolCall:
    """One call the fake model makes. `arguments` as a str goes out unchanged, so it may be malformed JSON."""

    name: str
    arguments: dict[str, Any] | str = field(default_factory=dict)
    id: str = ""

    def raw_arguments(self) -> str:
        if isinstance(self.arguments, str):
            return self.arguments
        return json.dumps(self.arguments, ensure_ascii=False)


@dataclass(frozen=True)
class Reply:
    """One scripted answer of the fake model; token counts that are not given are estimated."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Reply":
        """Build a reply from the control API's JSON, whose keys are this class's field names."""
        calls = tuple(ToolCall(**call) for call in value.get("tool_calls", ()))
        return cls(**{**value, "tool_calls": calls})


def check_chat_request(body: Any) -> None:
    """Refuse what the real API refuses.

    Raises:
        InvalidRequestError: with the sentence for the error body.
    """
    if not isinstance(body, dict):
        raise InvalidRequestError("the body must be a JSON object")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise InvalidRequestError("you must provide a model parameter")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequestError("'messages' must be a list with at least one message")
    if "stream_options" in body and not body.get("stream"):
        raise InvalidRequestError("'stream_options' is only allowed when 'stream' is enabled")
    for tool in body.get("tools", ()):
        if not FUNCTION_NAME.fullmatch(str(tool.get("function", {}).get("name", ""))):
            raise InvalidRequestError("tools[].function.name must match ^[a-zA-Z0-9_-]{1,64}$")
    _check_messages(messages)


def _check_messages(messages: list[Any]) -> None:
    awaited: set[str] = set()
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            raise InvalidRequestError(f"messages[{number}].role is missing or unknown")
        if role == "tool":
            if message.get("tool_call_id") not in awaited:
                raise InvalidRequestError(
                    f"messages[{number}]: messages with role 'tool' must be a response to a preceding "
                    "message with 'tool_calls'"
                )
            awaited.discard(message["tool_call_id"])
            continue
        if awaited:
            raise InvalidRequestError(
                f"messages[{number}]: an assistant message with 'tool_calls' must be followed by tool "
                f"messages responding to each 'tool_call_id'; missing: {sorted(awaited)}"
            )
        if role == "assistant":
            awaited = {call["id"] for call in message.get("tool_calls") or ()}
        if message.get("content") is None and not awaited:
            raise InvalidRequestError(f"messages[{number}].content is missing")
    if awaited:
        raise InvalidRequestError(f"tool calls without a response: {sorted(awaited)}")


def finish_reason(reply: Reply) -> str:
    return reply.finish_reason or ("tool_calls" if reply.tool_calls else "stop")


def usage(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """Token counts of one answer; four characters count as one token where the script names no figure."""
    text_in = json.dumps(body["messages"], ensure_ascii=False)
    text_out = reply.text + "".join(call.raw_arguments() for call in reply.tool_calls)
    tokens_in = len(text_in) // 4 + 1 if reply.prompt_tokens is None else reply.prompt_tokens
    tokens_out = len(text_out) // 4 + 1 if reply.completion_tokens is None else reply.completion_tokens
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
    }


def completion(number: int, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    """Build the whole `chat.completion` object."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.tool_calls:
        message["tool_calls"] = [
            {"id": _call_id(number, at, call), "type": "function",
             "function": {"name": call.name, "arguments": call.raw_arguments()}}
            for at, call in enumerate(reply.tool_calls)
        ]  # fmt: skip
    return {
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason(reply)}],
        "usage": usage(body, reply),
    }  # fmt: skip


def chunks(number: int, body: dict[str, Any], reply: Reply) -> Iterator[dict[str, Any]]:
    """Build the `chat.completion.chunk` objects: role, text word by word, arguments in thirds."""
    yield _chunk(number, body, {"role": "assistant", "content": ""})
    for piece in re.findall(r"\S+\s*|\s+", reply.text):
        yield _chunk(number, body, {"content": piece})
    for at, call in enumerate(reply.tool_calls):
        head = {"name": call.name, "arguments": ""}
        opening = {"index": at, "id": _call_id(number, at, call), "type": "function", "function": head}
        yield _chunk(number, body, {"tool_calls": [opening]})
        raw = call.raw_arguments()
        step = max(1, -(-len(raw) // 3))
        for start in range(0, len(raw), step):
            part = {"index": at, "function": {"arguments": raw[start : start + step]}}
            yield _chunk(number, body, {"tool_calls": [part]})
    yield _chunk(number, body, {}, finish_reason(reply))
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**_chunk(number, body, {}), "choices": [], "usage": usage(body, reply)}


def _chunk(
    number: int, body: dict[str, Any], delta: dict[str, Any], finish: str | None = None
) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }  # fmt: skip


def _call_id(number: int, at: int, call: ToolCall) -> str:
    return call.id or f"call_{number}_{at}"


def embedding(text: str, dimensions: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A unit vector made of the words' hashes: shared words bring texts near."""
    total = np.zeros(dimensions, dtype=np.float64)
    for word in text.casefold().split() or [""]:
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big")
        total += np.random.default_rng(seed).standard_normal(dimensions)
    return (total / np.linalg.norm(total)).astype(np.float32)


def embeddings(body: Any) -> dict[str, Any]:
    """Answer /v1/embeddings with floats, or base64 of little-endian float32 where asked.

    Raises:
        InvalidRequestError: no model or no input.
    """
    if not isinstance(body, dict) or not body.get("model") or not body.get("input"):
        raise InvalidRequestError("'model' and a non-empty 'input' are required")
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    if not all(isinstance(text, str) and text for text in texts):
        raise InvalidRequestError("'input' must be a non-empty string or a list of non-empty strings")
    data = []
    for index, text in enumerate(texts):
        vector = embedding(text, int(body.get("dimensions", 1536)))
        as_text = body.get("encoding_format") == "base64"
        shown = base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_text else vector.tolist()
        data.append({"object": "embedding", "index": index, "embedding": shown})
    tokens = sum(len(text) // 4 + 1 for text in texts)
    counted = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body["model"], "usage": counted}


def moderations(body: Any, flagged: dict[str, str]) -> dict[str, Any]:
    """Answer /v1/moderations: a text that holds a phrase of `flagged` gets its category.

    Raises:
        InvalidRequestError: no input.
    """
    if not isinstance(body, dict) or not body.get("input"):
        raise InvalidRequestError("'input' is required")
    results = []
    for text in [body["input"]] if isinstance(body["input"], str) else body["input"]:
        hit = {category for phrase, category in flagged.items() if phrase.casefold() in str(text).casefold()}
        results.append({
            "flagged": bool(hit),
            "categories": {name: name in hit for name in MODERATION_CATEGORIES},
            "category_scores": {name: 0.98 if name in hit else 0.01 for name in MODERATION_CATEGORIES},
        })  # fmt: skip
    model = body.get("model", "omni-moderation-latest")
    return {"id": "modr-1", "model": model, "results": results}
