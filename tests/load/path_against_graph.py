"""Figure (a): the whole path of a message against a bare LangGraph graph, the same model and the same database, turn about.

Ours is all that a message goes through: stored in the inbox, woken through arq, claimed under a lease, masked, routed, a tool that writes
a lead, journalled, checked, answered in one transaction, sent, and heard by a socket's subscription. The bare graph has the same shape
(supervisor, router, specialist, tool, specialist, supervisor), the same three model calls and one tool that does nothing, and
AsyncPostgresSaver in its default durability: what one gets from the tutorial.
"""

import asyncio
import json
import statistics
import time
from dataclasses import replace
from typing import Any, TypedDict
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from rich.progress import track

from agents.models import ModelGateway, ModelReply, Task
from graphs.checkpoints import make_checkpoint_pool
from server.channels.widget.send import room
from server.deps import Parts, build_parts
from server.jobs.desk import Desk
from server.jobs.ingest import IngestJob
from server.mind import build_mind
from server.settings import ServerSettings
from server.worker import listen, opened_inbox
from storage.queue import Queue, take_now
from tests.load.figures import figure, write_figures
from tests.support.servers import Addresses, settings_for
from tests.support.world import make_tenant, make_visitor

ROUNDS, WARM_UP = 150, 15
QUESTION = "Please send me an offer for a cargo bike: anna.berger@example.org"
ROUTE = '{"agent": "sales", "confidence": 0.9, "language": "en"}'
LEAD = {"subject": "cargo bike", "email": "⟦EMAIL_1⟧"}


class InstantModel(BaseChatModel):
    """Answers at once: the route, then a call of the tool, then a sentence."""

    tool: str

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _generate(self, messages: list[BaseMessage], *_args: Any, **kwargs: Any) -> ChatResult:
        if kwargs.get("step") == "route":
            answer = AIMessage(ROUTE)
        elif isinstance(messages[-1], ToolMessage):
            answer = AIMessage("Thank you, a colleague will write to you.")
        else:
            answer = AIMessage(
                "", tool_calls=[{"name": self.tool, "args": LEAD, "id": f"call_{uuid4().hex}"}]
            )
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return self._generate(messages, *args, **kwargs)


class InstantGateway(ModelGateway):
    """The gateway's interface over the instant model."""

    def __init__(self) -> None:
        self._model = InstantModel(tool="crm_create_lead")

    async def complete(self, task: Task, messages: list[BaseMessage], **_kwargs: Any) -> ModelReply:
        message = await self._model.ainvoke(messages, step=task.kind)
        return ModelReply(message, "instant", False, 0, 0)

    async def aclose(self) -> None:
        return None


class BareState(TypedDict):
    messages: list[AnyMessage]
    agent: str


def bare_graph(saver: AsyncPostgresSaver) -> Any:
    """The tutorial's graph of the same shape."""
    model = InstantModel(tool="create_lead")

    async def supervisor_in(state: BareState) -> dict[str, Any]:
        return {"messages": state["messages"]}

    async def router(state: BareState) -> dict[str, Any]:
        answer = await model.ainvoke(state["messages"], step="route")
        return {"agent": json.loads(str(answer.text))["agent"]}

    async def specialist(state: BareState) -> dict[str, Any]:
        return {"messages": [*state["messages"], await model.ainvoke(state["messages"])]}

    async def tools(state: BareState) -> dict[str, Any]:
        call = state["messages"][-1].tool_calls[0]  # type: ignore[union-attr]  # the edge saw that it has one
        return {"messages": [*state["messages"], ToolMessage('{"ok": true}', tool_call_id=call["id"])]}

    async def supervisor_out(state: BareState) -> dict[str, Any]:
        return {"messages": [state["messages"][0], state["messages"][-1]]}

    graph = StateGraph(BareState)
    for name, node in [
        ("supervisor_in", supervisor_in),
        ("router", router),
        ("specialist", specialist),
        ("tools", tools),
        ("supervisor_out", supervisor_out),
    ]:
        graph.add_node(name, node)
    graph.add_edge(START, "supervisor_in")
    graph.add_edge("supervisor_in", "router")
    graph.add_edge("router", "specialist")
    graph.add_conditional_edges(
        "specialist",
        lambda state: "tools" if state["messages"][-1].tool_calls else "supervisor_out",
        ["tools", "supervisor_out"],
    )
    graph.add_edge("tools", "specialist")
    graph.add_edge("supervisor_out", END)
    return graph.compile(checkpointer=saver)


async def measure(addresses: Addresses, database: str) -> None:
    """Both arms in turn, each message in a thread of its own; writes build/bench/path.json."""
    parts = build_parts("bench", ServerSettings(), settings_for(addresses, database))
    mind = replace(build_mind(parts), gateway=InstantGateway())
    saver_pool = make_checkpoint_pool(addresses.database_url(database), size=5)
    await saver_pool.open()
    async with opened_inbox(parts, mind, None) as (inbox, outbox):
        desk = Desk(inbox, outbox, IngestJob(parts.intake), max_turns=8)
        url = parts.storage.redis_url or ""
        wake_ups = asyncio.gather(listen(url, desk), take_now(url, desk.drain_inbox))
        tenant = await make_tenant(parts, "bench")
        bare = bare_graph(AsyncPostgresSaver(saver_pool))
        ours: list[float] = []
        theirs: list[float] = []
        unwoken: list[float] = []
        for _ in track(range(ROUNDS + WARM_UP), description="turns"):
            ours.append(await whole_path(parts, tenant))
            theirs.append(await bare_turn(bare))
            unwoken.append(await without_queue(parts, tenant, inbox))
        wake_ups.cancel()
        await asyncio.gather(wake_ups, return_exceptions=True)
        await desk.aclose(5)
    await saver_pool.close()
    await parts.aclose()
    a, b, c = (statistics.median(arm[WARM_UP:]) for arm in (ours, theirs, unwoken))
    ratios = [x / y for x, y in zip(ours[WARM_UP:], theirs[WARM_UP:], strict=True)]
    write_figures(
        "path",
        [
            figure("whole path / bare graph, ratio of medians", a / b, "ratio", ROUNDS),
            figure(
                "whole path / bare graph, median of paired ratios", statistics.median(ratios), "ratio", ROUNDS
            ),
            figure("whole path without the wake-up / bare graph, ratio of medians", c / b, "ratio", ROUNDS),
            figure("whole path, median", a * 1000, "ms", ROUNDS),
            figure("bare graph with AsyncPostgresSaver, default durability, median", b * 1000, "ms", ROUNDS),
            figure("whole path without the wake-up, median", c * 1000, "ms", ROUNDS),
        ],
    )


async def whole_path(parts: Parts, tenant: Any) -> float:
    """Seconds from a message's arrival to the socket's hearing of its answer."""
    visitor = await make_visitor(parts, tenant)
    heard = asyncio.Event()

    async def on_event(event: dict[str, Any]) -> None:
        if event["t"] == "new":
            heard.set()

    channel = room(tenant.context, visitor.thread_id)
    await parts.bus.subscribe(channel, on_event)
    await asyncio.sleep(0.02)  # the subscription is on its way; not part of the path
    began = time.perf_counter()
    await visitor.write(QUESTION)
    async with asyncio.timeout(10):
        await heard.wait()
    seconds = time.perf_counter() - began
    await parts.bus.unsubscribe(channel, on_event)
    return seconds


async def without_queue(parts: Parts, tenant: Any, inbox: Any) -> float:
    """The same without arq's polling: stored, then worked at once."""
    visitor = await make_visitor(parts, tenant)
    quiet = replace(visitor, parts=replace(parts, queue=_Silence()))
    began = time.perf_counter()
    await quiet.write(QUESTION)
    await inbox.drain(tenant.info.id, visitor.thread_id)
    return time.perf_counter() - began


class _Silence(Queue):
    """Wakes nobody."""

    def __init__(self) -> None:
        pass

    async def wake_inbox(self, *_ids: object) -> None:
        return None


async def bare_turn(graph: Any) -> float:
    config = {"configurable": {"thread_id": uuid4().hex}, "recursion_limit": 25}
    began = time.perf_counter()
    await graph.ainvoke({"messages": [HumanMessage(QUESTION)], "agent": ""}, config)
    return time.perf_counter() - began
