"""The model gateway: one way to ask for an answer, of the provider or else of the offline model.

The customer gets an answer in either case; `ModelReply.reduced` says when the offline model had to stand in.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_openai import ChatOpenAI

from agents.provider import Draft, Outcome, Provider, SinkError
from agents.settings import ModelSettings

log = structlog.get_logger(__name__)

ATTEMPTS = 2
UNUSABLE = frozenset({"malformed_tool_calls", "empty_reply"})


@dataclass(frozen=True)
class Task:
    """What the model is asked for; the offline model chooses its behaviour by it, the provider never sees it.

    Attributes:
        agent: the specialist's name, for kind "answer".
        language: BCP 47 primary subtag of the customer's message.
    """

    kind: Literal["route", "answer"]
    agent: str | None = None
    language: str = "en"


@dataclass(frozen=True)
class ModelReply:
    """One answer of one model.

    Attributes:
        message: `.content` is a str; `.tool_calls` hold complete, parsed arguments only.
        model: the provider's model by its configured name, or "offline".
        reduced: the offline model stood in for a provider that is configured but failed.
        tokens_in: the provider's count, all tries together, unusable ones too; estimated where it
            sent none; 0 for an answer that cost nothing.
        tokens_out: as `tokens_in`.
    """

    message: AIMessage
    model: str
    reduced: bool
    tokens_in: int
    tokens_out: int


class ModelGateway:
    """Asks the provider under timeouts and a circuit breaker; hands over to the offline model when it fails.

    Args:
        settings: provider, models and timeouts.
        offline: makes the offline model for a task.
        clock: seconds, monotonic; the circuit breaker's.
    """

    def __init__(
        self,
        settings: ModelSettings,
        offline: Callable[[Task], BaseChatModel],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._offline = offline
        self._tiers = {"fast": settings.model_fast, "standard": settings.model_standard}
        self._provider = Provider(settings, clock) if settings.provider_configured else None

    async def complete(
        self,
        task: Task,
        messages: list[BaseMessage],
        *,
        tools: Sequence[dict[str, Any]] = (),
        tier: str = "standard",
        temperature: float = 0.0,
        max_tokens: int | None = None,
        on_delta: Callable[[str], Awaitable[None]] | None = None,
    ) -> ModelReply:
        """Get one answer: a text, or tool calls.

        Args:
            task: what is asked for; see `Task`.
            messages: the conversation so far; placeholders stand for personal data.
            temperature: randomness, 0 to 2; left out for models that refuse it.
            tools: OpenAI function specs, `{"type": "function", "function": {name, description, parameters}}`.
            tier: "fast" or "standard"; which model is meant is the settings' business.
            max_tokens: limit of the answer's length; the provider's default where None.
            on_delta: receives each piece of text as it comes. Where the source fails after the first piece,
                no further piece follows: the reply's text is the only complete one.

        Raises:
            ValueError: the tier is unknown.
            Exception: whatever on_delta or the offline model raises; a provider's failure never does.
        """
        if tier not in self._tiers:
            raise ValueError(f"unknown model tier {tier!r}; known: {sorted(self._tiers)}")
        draft = Draft(on_delta)
        try:
            if self._provider is None:
                message = await self._ask_offline(task, messages, tools, draft)
                return ModelReply(message, "offline", False, 0, 0)
            model = self._provider.model(self._tiers[tier], temperature, max_tokens)
            outcome = await self._ask_provider(self._provider, task, model, messages, tools, draft)
            spent = (outcome.tokens_in, outcome.tokens_out)
            if outcome.message is not None:
                return ModelReply(outcome.message, model.model_name, False, *spent)
            message = await self._ask_offline(task, messages, tools, draft)
            return ModelReply(message, "offline", True, *spent)
        except SinkError as error:
            raise error.error from None

    async def aclose(self) -> None:
        """Close the connections to the provider."""
        if self._provider is not None:
            await self._provider.aclose()

    async def _ask_provider(
        self,
        provider: Provider,
        task: Task,
        model: ChatOpenAI,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any]],
        draft: Draft,
    ) -> Outcome:
        """Ask once, and once more where the answer cannot be used; no message means: hand over."""
        deadline = asyncio.get_running_loop().time() + self._settings.model_total_timeout
        total = Outcome(None, "")
        for attempt in range(1, ATTEMPTS + 1):
            outcome = await provider.attempt(model, messages, tools, draft, deadline)
            spent = (total.tokens_in + outcome.tokens_in, total.tokens_out + outcome.tokens_out)
            total = Outcome(outcome.message, outcome.reason, *spent)
            if outcome.message is not None:
                break
            draft.source_failed()
            write = log.error if outcome.reason in {"configuration", "unexpected"} else log.warning
            write(
                "model.failed", reason=outcome.reason, model=model.model_name, task=task.kind, attempt=attempt
            )
            if outcome.reason not in UNUSABLE:
                break
        return total

    async def _ask_offline(
        self,
        task: Task,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any]],
        draft: Draft,
    ) -> AIMessage:
        more: dict[str, Any] = {"tools": list(tools)} if tools else {}
        whole: AIMessageChunk | None = None
        async for chunk in self._offline(task).astream(messages, **more):
            whole = chunk if whole is None else whole + chunk
            await draft.show(str(chunk.text))
        assert whole is not None, "the offline model sent nothing"
        return AIMessage(content=str(whole.text), tool_calls=whole.tool_calls)
