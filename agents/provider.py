"""The provider behind the gateway: one try at a streamed answer, under timeouts and a circuit breaker."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import openai
import structlog
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from agents.breaker import CircuitBreaker
from agents.settings import PROVIDER_URL, ModelSettings

log = structlog.get_logger(__name__)


class SinkError(Exception):
    """The draft's reader raised `error`: a fault of ours, never the provider's."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Draft:
    """Hands text on as it comes; once some was shown and its source failed, it hands on no more."""

    def __init__(self, sink: Callable[[str], Awaitable[None]] | None) -> None:
        self._sink = sink
        self._shown = False

    async def show(self, text: str) -> None:
        if self._sink is None or not text:
            return
        self._shown = True
        try:
            await self._sink(text)
        except Exception as error:
            raise SinkError(error) from error

    def source_failed(self) -> None:
        # a second text after half of a first would read as one; the final reply replaces the draft anyway
        if self._shown:
            self._sink = None


@dataclass(frozen=True)
class Outcome:
    """One try's result: a message, or the reason why there is none."""

    message: AIMessage | None
    reason: str
    tokens_in: int = 0
    tokens_out: int = 0


class Provider:
    """Speaks with an OpenAI-compatible server; holds the connections and the circuit breaker.

    Args:
        clock: seconds, monotonic; the circuit breaker's.
    """

    def __init__(self, settings: ModelSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._models: dict[tuple[str, float, int | None], ChatOpenAI] = {}
        self._pool = openai.DefaultAsyncHttpxClient(timeout=settings.model_total_timeout)
        self.breaker = CircuitBreaker("model provider", clock)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    def model(self, name: str, temperature: float, max_tokens: int | None) -> ChatOpenAI:
        """The client for one model and its options."""
        # one instance for each combination, because ChatOpenAI drops what a model refuses only when built
        key = (name, temperature, max_tokens)
        if key not in self._models:
            self._models[key] = ChatOpenAI(
                model=name,
                temperature=temperature,
                max_completion_tokens=max_tokens,
                api_key=self._settings.openai_api_key or SecretStr("unused"),
                # named even when it is the default: else OPENAI_API_BASE would pass by the settings' check
                base_url=self._settings.openai_base_url or PROVIDER_URL,
                max_retries=0,
                stream_usage=True,
                use_responses_api=False,
                http_async_client=self._pool,
            )
        return self._models[key]

    async def attempt(
        self,
        model: ChatOpenAI,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any]],
        draft: Draft,
        deadline: float,
    ) -> Outcome:
        """Ask once. `deadline` is in the event loop's time, seconds.

        Raises:
            SinkError: the draft's reader failed.
        """
        permit = self.breaker.acquire()
        if permit is None:
            return Outcome(None, "circuit_open")
        try:
            whole = await self._stream(model, messages, tools, draft, deadline)
        except SinkError:
            raise
        except Exception as error:
            reason, answered = _classify(error)
            if answered:
                permit.success()
            else:
                permit.failure()
            # type and status only: the provider's error texts may quote the message
            log.info("model.error", error=type(error).__name__, status=getattr(error, "status_code", None))
            return Outcome(None, reason)
        finally:
            permit.release()
        if whole is None or not whole.response_metadata.get("finish_reason"):
            permit.failure()
            return Outcome(None, "stream_broken")
        permit.success()
        return _read(whole, messages)

    async def _stream(
        self,
        model: ChatOpenAI,
        messages: list[BaseMessage],
        tools: Sequence[dict[str, Any]],
        draft: Draft,
        deadline: float,
    ) -> AIMessageChunk | None:
        """Add up the stream; without a draft too, so that the first token's limit holds for all."""
        more: dict[str, Any] = {"tools": list(tools)} if tools else {}
        first = asyncio.get_running_loop().time() + self._settings.model_first_token_timeout
        whole: AIMessageChunk | None = None
        async with asyncio.timeout_at(min(first, deadline)) as limit:
            # type: typed as an iterator, but it is a generator
            stream = model.astream(messages, **more)
            async with aclosing(stream) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    assert isinstance(chunk, AIMessageChunk)
                    if chunk.text or chunk.tool_call_chunks:
                        limit.reschedule(deadline)
                    whole = chunk if whole is None else whole + chunk
                    await draft.show(str(chunk.text))
        return whole


def _classify(error: Exception) -> tuple[str, bool]:
    """The reason to log, and whether the provider is well, that is: it answered, but refused our request."""
    if isinstance(error, (TimeoutError, openai.APITimeoutError)):
        return "timeout", False
    if isinstance(error, openai.APIConnectionError):
        return "connection", False
    if isinstance(error, openai.APIStatusError):
        if error.status_code == 429:
            return "rate_limited", False
        # 408 and 409 are passing states of the server, not faults of the request
        passing = error.status_code >= 500 or error.status_code in {408, 409}
        return ("server_error", False) if passing else ("configuration", True)
    if isinstance(error, (openai.APIError, ValueError)):  # an error event or broken JSON inside the stream
        return "stream_broken", False
    return "unexpected", False


def _read(whole: AIMessageChunk, messages: list[BaseMessage]) -> Outcome:
    """Read the finished stream strictly: langchain's own parser completes a JSON that was cut off."""
    usage = whole.usage_metadata
    tokens_in = usage["input_tokens"] if usage else count_tokens_approximately(messages)
    tokens_out = usage["output_tokens"] if usage else count_tokens_approximately([whole])
    calls = []
    for part in whole.tool_call_chunks:
        try:
            args = json.loads(part["args"] or "{}")
        except ValueError:
            args = None
        if not isinstance(args, dict) or not part["name"] or not part["id"]:
            return Outcome(None, "malformed_tool_calls", tokens_in, tokens_out)
        calls.append({"name": part["name"], "args": args, "id": part["id"], "type": "tool_call"})
    text = str(whole.text)
    if not text.strip() and not calls:
        return Outcome(None, "empty_reply", tokens_in, tokens_out)
    message = AIMessage(content=text, tool_calls=calls)
    return Outcome(message, "", tokens_in, tokens_out)
