"""One step of a model, journalled: the same for the router and for every specialist."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage

from agents.models import ModelGateway, Task
from agents.transcript import answer_from, as_json, calls_of
from prompts.loader import PromptFile
from storage.journal import Recorded, TurnJournal


@dataclass(frozen=True)
class Thought:
    """A model's answer. ``reduced``: the offline model stood in for a provider that failed."""

    message: AIMessage
    reduced: bool


async def think(
    gateway: ModelGateway,
    journal: TurnJournal,
    task: Task,
    prompt: PromptFile,
    inputs: dict[str, str],
    conversation: Sequence[BaseMessage],
    *,
    tools: Sequence[dict[str, Any]] = (),
    tier: str,
    on_delta: Callable[[str], Awaitable[None]] | None = None,
) -> Thought:
    """Render the prompt, put the conversation in its place, and get an answer: from the journal, or from a
    model.

    Args:
        conversation: what was said, with placeholders; takes the place of the prompt's thread input, never
            passes through its template.
    """
    rendered = prompt.render(**inputs)
    messages: list[BaseMessage] = [SystemMessage(text) for text in rendered.before]
    messages += conversation
    messages += [SystemMessage(text) for text in rendered.after]
    request = {
        "prompt": prompt.name,
        "prompt_sha256": prompt.sha256,
        "tools": [tool["function"]["name"] for tool in tools],
        "messages": as_json(messages),
    }

    async def ask() -> Recorded:
        reply = await gateway.complete(
            task,
            messages,
            tools=tools,
            tier=tier,
            temperature=prompt.temperature,
            max_tokens=prompt.max_tokens,
            on_delta=on_delta,
        )
        response = {
            "content": str(reply.message.text),
            "tool_calls": calls_of(reply.message),
            "reduced": reply.reduced,
        }
        return Recorded(response, reply.model, reply.tokens_in, reply.tokens_out)

    recorded = await journal.model(prompt.name, request, ask)
    return Thought(answer_from(recorded.response), bool(recorded.response["reduced"]))
