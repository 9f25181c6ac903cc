"""The honest offline model: no network, no generation; it routes, calls tools and quotes by similarity alone.

It sees what every model sees, messages and tool specs, and the examples of the prompts folder. What it does
not find it hands to a person; it never makes up a sentence about the business.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict

from agents.models import Task
from agents.offline_answer import OfflineAnswerer
from agents.offline_examples import ExampleLibrary
from agents.offline_router import OfflineRouter
from agents.offline_turn import Decision, Turn
from storage.vectors.embedder import Embedder


class OfflineChatModel(BaseChatModel):
    """A chat model in langchain's sense, so that the gateway cannot tell it from a provider's.

    Attributes:
        task: chooses the behaviour: "route" answers with JSON `{"agent", "confidence", "language"}`, "answer"
            with a text or one tool call.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    task: Task
    router: OfflineRouter
    answerer: OfflineAnswerer

    @property
    def _llm_type(self) -> str:
        return "offline"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Bind OpenAI function specs or whatever langchain can turn into them."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    async def _decide(self, messages: list[BaseMessage], tools: Sequence[dict[str, Any]]) -> Decision:
        if self.task.kind == "route":
            return await self.router.route(Turn.read(messages), self.task.language)
        return await self.answerer.answer(Turn.read(messages), tools, self.task.language)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        decision = await self._decide(messages, kwargs.get("tools") or ())
        return ChatResult(generations=[ChatGeneration(message=_message(decision, messages))])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # in a thread of its own, because the caller may stand inside a running event loop
        with ThreadPoolExecutor(max_workers=1) as pool:
            return pool.submit(asyncio.run, self._agenerate(messages, stop, **kwargs)).result()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(_message(await self._decide(messages, kwargs.get("tools") or ()), messages)):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def offline_models(library: ExampleLibrary, embedder: Embedder) -> Callable[[Task], BaseChatModel]:
    """Make the factory that the gateway takes; the examples are embedded once, at the first question."""
    router = OfflineRouter(library, embedder)
    answerer = OfflineAnswerer(library, embedder)

    def make(task: Task) -> BaseChatModel:
        return OfflineChatModel(task=task, router=router, answerer=answerer)

    return make


def _message(decision: Decision, messages: list[BaseMessage]) -> AIMessage:
    if decision.call is None:
        return AIMessage(content=decision.text)
    name, arguments = decision.call
    # made of its circumstances: a turn that is run again must ask for the same call under the same id
    seed = json.dumps([name, arguments, [str(message.content) for message in messages]], sort_keys=True)
    call_id = "call_" + hashlib.sha256(seed.encode()).hexdigest()[:16]
    call = {"name": name, "args": arguments, "id": call_id, "type": "tool_call"}
    return AIMessage(content="", tool_calls=[call])


def _chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    for call in message.tool_calls:
        part = tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=0)
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[part]))
    for piece in re.findall(r"\s*\S+\s*?(?=\s|$)|\s+$", str(message.content)):
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
