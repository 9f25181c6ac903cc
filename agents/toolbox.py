"""What stands between a specialist and the tools: which it has, placeholders in and out, and the call for a
person.
"""

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from agents.spec import AgentSpec
from agents.supervisor.pii import Masker
from storage.placeholders import Vault
from tools.sdk.registry import Registry
from tools.sdk.runner import ToolRunner

CALL_PERSON = "call_person"
MAX_CALLS_A_TURN = 8

# Not a tool of a domain: it changes the conversation's state, and the reply is a fixed text, never parsed
# from the model's prose.
CALL_PERSON_SPEC: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": CALL_PERSON,
        "description": "Pass this conversation to a person of the business: "
        "you do not know, you are not allowed to, or the customer asks for one.",
        "parameters": {
            "type": "object",
            "properties": {
                "reason": {"type": "string", "description": "Why, in one sentence, for the colleague."}
            },
            "required": ["reason"],
        },
    },
}


def specs_for(agent: AgentSpec, registry: Registry) -> list[dict[str, Any]]:
    """The agent's tools in the shape of OpenAI's function calling."""
    return [*(registry.tools[name].openai_spec for name in agent.tools), CALL_PERSON_SPEC]


class VaultPrivacy:
    """Placeholders of one thread as the tools need them (tools.sdk.fields.Privacy)."""

    def __init__(self, vault: Vault, masker: Masker) -> None:
        self._vault = vault
        self._masker = masker

    def token(self, kind: str, value: str) -> str:
        return self._vault.token(kind, value)

    def mask(self, text: str) -> str:
        return self._masker.mask(text, self._vault)

    def known(self, text: str) -> str:
        return self._vault.replace_known(text)

    def restore(self, text: str) -> str:
        return self._vault.restore(text)


class Toolbox:
    """Carries out the calls of one turn, one after the other, so that their order is the same in a re-run."""

    def __init__(self, runner: ToolRunner) -> None:
        self._runner = runner

    async def carry_out(
        self, agent: AgentSpec, message: AIMessage, before: Sequence[BaseMessage]
    ) -> list[ToolMessage]:
        """Answers to all calls of a model's message.

        Args:
            before: the messages of the turn so far; tells how many calls and passages there were.
        """
        results: list[ToolMessage] = []
        done = [item for item in before if isinstance(item, ToolMessage)]
        for call in message.tool_calls:
            if len(done) + len(results) >= MAX_CALLS_A_TURN:
                result: dict[str, Any] = {
                    "error": f"No more than {MAX_CALLS_A_TURN} calls a turn. Answer with what you have."
                }
            else:
                result = await self._runner.call(
                    call["name"],
                    call["args"],
                    allowed=frozenset(agent.tools),
                    labels=len(passages_in([*done, *results])),
                )
            results.append(
                ToolMessage(
                    json.dumps(result, ensure_ascii=False), tool_call_id=call["id"], name=call["name"]
                )
            )
        return results


def passages_in(messages: Sequence[BaseMessage]) -> dict[str, dict[str, Any]]:
    """The passages that tools have shown in these messages, by their id (K1, K2, …)."""
    found: dict[str, dict[str, Any]] = {}
    for message in messages:
        if isinstance(message, ToolMessage):
            for passage in json.loads(str(message.text)).get("passages", ()):
                found[passage["id"]] = passage
    return found
