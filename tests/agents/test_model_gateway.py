"""The gateway against a real HTTP server that fails on demand: there is an answer whatever happens."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import ValidationError

from agents.models import ModelGateway, ModelReply, Task
from agents.settings import ModelSettings
from tests.sandbox.openai import Fault, OpenAISandbox, Reply, ToolCall
from tests.sandbox.server import serve

ASK: list[BaseMessage] = [SystemMessage("You help."), HumanMessage("secret words of the customer")]
SPEC = {"type": "function", "function": {"name": "crm_add_note", "description": "d", "parameters": {
    "type": "object", "properties": {"text": {"type": "string"}}}}}  # fmt: skip
CALL = Reply(
    tool_calls=(ToolCall("crm_add_note", {"text": "x"}, "t1"),), prompt_tokens=7, completion_tokens=2
)
ANSWER = Task("answer", agent="sales")


def offline(task: Task) -> BaseChatModel:
    return FakeListChatModel(responses=[f"offline {task.kind}"])


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OpenAISandbox, str]]:
    made = OpenAISandbox()
    with serve(made) as base_url:
        yield made, base_url


@pytest.fixture
def sandbox(served: tuple[OpenAISandbox, str]) -> OpenAISandbox:
    served[0].reset()
    return served[0]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def gateway(
    served: tuple[OpenAISandbox, str], sandbox: OpenAISandbox, clock: Clock
) -> AsyncIterator[ModelGateway]:
    made = ModelGateway(settings(f"{served[1]}/v1"), offline, clock)
    yield made
    await made.aclose()


@pytest.fixture
async def hasty(served: tuple[OpenAISandbox, str], sandbox: OpenAISandbox) -> AsyncIterator[ModelGateway]:
    """A gateway that does not wait long; for the stalls alone, because a busy machine may be slow too."""
    limits = {"model_first_token_timeout": 0.4, "model_total_timeout": 1.0}
    made = ModelGateway(settings(f"{served[1]}/v1", **limits), offline)
    yield made
    await made.aclose()


def settings(url: str, **more: Any) -> ModelSettings:
    values: dict[str, Any] = {"model_first_token_timeout": 20, "model_total_timeout": 30, **more}
    return ModelSettings(openai_api_key=None, openai_base_url=url, **values)


def summary(reply: ModelReply) -> tuple[str, str, bool]:
    return str(reply.message.content), reply.model, reply.reduced


async def test_text_with_deltas_and_usage(gateway: ModelGateway, sandbox: OpenAISandbox) -> None:
    sandbox.script(Reply(text="one two three", prompt_tokens=11, completion_tokens=3))
    seen: list[str] = []

    async def collect(delta: str) -> None:
        seen.append(delta)

    reply = await gateway.complete(ANSWER, ASK, max_tokens=99, on_delta=collect)
    assert summary(reply) == ("one two three", "gpt-4.1-mini", False)
    assert (reply.tokens_in, reply.tokens_out, seen) == (11, 3, ["one ", "two ", "three"])
    [body] = sandbox.chat_requests()
    assert body.pop("messages")[1] == {"role": "user", "content": "secret words of the customer"}
    assert body == {
        "model": "gpt-4.1-mini", "temperature": 0.0, "max_completion_tokens": 99,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


async def test_tools_and_fast_tier(gateway: ModelGateway, sandbox: OpenAISandbox) -> None:
    sandbox.script(CALL, "done")
    reply = await gateway.complete(ANSWER, ASK, tools=[SPEC], tier="fast")
    assert reply.message.tool_calls == [
        {"name": "crm_add_note", "args": {"text": "x"}, "id": "t1", "type": "tool_call"}
    ]
    assert (reply.model, reply.message.content) == ("gpt-4o-mini", "")
    follow = [*ASK, reply.message, ToolMessage("ok", tool_call_id="t1")]
    assert summary(await gateway.complete(ANSWER, follow, tools=[SPEC])) == ("done", "gpt-4.1-mini", False)
    assert [body["tools"] for body in sandbox.chat_requests()] == [[SPEC], [SPEC]]
    with pytest.raises(ValueError, match="unknown model tier 'huge'"):
        await gateway.complete(ANSWER, ASK, tier="huge")


FAULTS = [
    (Fault.rate_limit(), "rate_limited", "warning"),
    (Fault("status", status=500), "server_error", "warning"),
    (Fault("status", status=599), "server_error", "warning"),
    (Fault("status", status=400), "configuration", "error"),
    (Fault("status", status=401), "configuration", "error"),
    (Fault("status", status=403), "configuration", "error"),
    (Fault("status", status=404), "configuration", "error"),
    (Fault("stall_before", seconds=30), "timeout", "warning"),
    (Fault("stall_mid", seconds=30), "timeout", "warning"),
    (Fault("half_stream"), "connection", "warning"),
]


@pytest.mark.parametrize(("fault", "reason", "level"), FAULTS, ids=lambda value: getattr(value, "kind", None))
async def test_each_fault_hands_over(
    gateway: ModelGateway, hasty: ModelGateway, sandbox: OpenAISandbox, fault: Fault, reason: str, level: str
) -> None:
    asked = hasty if fault.kind.startswith("stall") else gateway
    sandbox.fault(fault)
    sandbox.script("one two three four")
    seen: list[str] = []

    async def collect(delta: str) -> None:
        seen.append(delta)

    with structlog.testing.capture_logs() as logs:
        reply = await asked.complete(Task("route"), ASK, on_delta=collect)
    assert summary(reply) == ("offline route", "offline", True)
    assert (reply.tokens_in, reply.tokens_out) == (0, 0)
    began = fault.kind in {"stall_mid", "half_stream"}
    assert "".join(seen) == ("one two " if began else "offline route")
    [failed] = [entry for entry in logs if entry["event"] == "model.failed"]
    assert (failed["reason"], failed["log_level"]) == (reason, level)
    assert "secret" not in str(logs)
    assert len(sandbox.chat_requests()) == 1


async def test_stall_before_the_first_token_ends_early(hasty: ModelGateway, sandbox: OpenAISandbox) -> None:
    sandbox.fault(Fault("stall_before", seconds=30))
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert (await hasty.complete(ANSWER, ASK)).reduced
    assert 0.4 <= loop.time() - start < 0.95


async def test_unreachable_provider() -> None:
    gateway = ModelGateway(settings("http://127.0.0.1:9/v1"), offline)
    assert summary(await gateway.complete(ANSWER, ASK)) == ("offline answer", "offline", True)
    await gateway.aclose()


async def test_malformed_arguments_are_tried_once_more(gateway: ModelGateway, sandbox: OpenAISandbox) -> None:
    sandbox.fault(Fault("malformed_arguments"))
    sandbox.script(CALL, CALL)
    reply = await gateway.complete(ANSWER, ASK, tools=[SPEC])
    assert (reply.message.tool_calls[0]["args"], reply.reduced) == ({"text": "x"}, False)
    assert (reply.tokens_in, reply.tokens_out) == (14, 4)
    sandbox.fault(Fault("malformed_arguments", times=2))
    sandbox.script(CALL, CALL)
    reply = await gateway.complete(ANSWER, ASK, tools=[SPEC])
    assert summary(reply) == ("offline answer", "offline", True)
    assert (reply.tokens_in, reply.tokens_out) == (14, 4)
    sandbox.verify()


@pytest.mark.parametrize(
    "bad", [Reply(), Reply(tool_calls=(ToolCall("crm_add_note", "[1]"),))], ids=["empty", "list"]
)
async def test_unusable_answers(gateway: ModelGateway, sandbox: OpenAISandbox, bad: Reply) -> None:
    sandbox.script(bad, bad)
    assert summary(await gateway.complete(ANSWER, ASK, tools=[SPEC])) == ("offline answer", "offline", True)
    assert gateway_requests(sandbox) == 2


def gateway_requests(sandbox: OpenAISandbox) -> int:
    return len(sandbox.chat_requests())


async def test_circuit_opens_and_closes_again(
    gateway: ModelGateway, sandbox: OpenAISandbox, clock: Clock
) -> None:
    sandbox.fault(Fault("status", times=5))
    for _ in range(8):
        assert (await gateway.complete(ANSWER, ASK)).reduced
    assert gateway_requests(sandbox) == 5
    clock.now = 15.0
    sandbox.script("well again", "and on")
    assert summary(await gateway.complete(ANSWER, ASK)) == ("well again", "gpt-4.1-mini", False)
    assert not (await gateway.complete(ANSWER, ASK)).reduced


async def test_a_refused_key_does_not_open_the_circuit(gateway: ModelGateway, sandbox: OpenAISandbox) -> None:
    sandbox.fault(Fault("status", times=8, status=401))
    for _ in range(8):
        assert (await gateway.complete(ANSWER, ASK)).reduced
    assert gateway_requests(sandbox) == 8


async def test_cancellation_passes_and_is_no_failure(
    gateway: ModelGateway, sandbox: OpenAISandbox, clock: Clock
) -> None:
    sandbox.fault(Fault("stall_before", times=6, seconds=30))
    for _ in range(6):
        running = asyncio.create_task(gateway.complete(ANSWER, ASK))
        before = gateway_requests(sandbox)
        while gateway_requests(sandbox) == before:  # counted in the server's thread
            await asyncio.sleep(0.005)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    sandbox.script("still closed")
    assert summary(await gateway.complete(ANSWER, ASK)) == ("still closed", "gpt-4.1-mini", False)


async def test_a_failing_reader_of_the_draft_is_not_the_providers_fault(
    gateway: ModelGateway, sandbox: OpenAISandbox
) -> None:
    async def broken(delta: str) -> None:
        raise TimeoutError(f"reader: {delta}")

    for _ in range(6):
        sandbox.script("one two")
        with pytest.raises(TimeoutError, match="reader: one "):
            await gateway.complete(ANSWER, ASK, on_delta=broken)
    sandbox.script("fine")
    assert not (await gateway.complete(ANSWER, ASK)).reduced


async def test_without_a_provider_only_the_offline_model_answers() -> None:
    gateway = ModelGateway(ModelSettings(openai_api_key=None, openai_base_url=None), offline)
    reply = await gateway.complete(ANSWER, ASK)
    assert reply == ModelReply(reply.message, "offline", False, 0, 0)
    assert isinstance(reply.message, AIMessage)
    await gateway.aclose()


CUSTOM = "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    "url",
    [
        CUSTOM,
        "http://api.openai.com/v1",
        "https://api.openai.com.evil.example/v1",
        "https://evilapi.openai.com/v1",
    ],
)
def test_production_refuses_another_address(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ENV", "production")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-shown")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ValidationError, match="not the provider's https address") as caught:
        ModelSettings()
    assert "sk-never-shown" not in str(caught.value)
    monkeypatch.setenv("MODEL_ALLOW_CUSTOM_BASE_URL", "true")
    assert ModelSettings().openai_base_url == url


@pytest.mark.parametrize("url", ["", "https://api.openai.com/v1", "https://eu.api.openai.com/v1"])
def test_production_takes_the_provider(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ENV", "production")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert ModelSettings().openai_base_url == (url or None)


def test_another_variable_cannot_redirect_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.provider import Provider

    monkeypatch.setenv("OPENAI_API_BASE", CUSTOM)
    made = Provider(ModelSettings(openai_base_url=None), Clock()).model("m", 0.0, None)
    assert made.openai_api_base == "https://api.openai.com/v1"
