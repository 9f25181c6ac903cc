"""The sandbox driven with the real openai client and with ChatOpenAI: it answers, and it says no."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.sandbox.openai import Fault, OpenAISandbox, Reply, ToolCall
from tests.sandbox.server import serve

SPEC = {"type": "function", "function": {"name": "find_slots", "description": "d", "parameters": {
    "type": "object", "properties": {"day": {"type": "string"}}}}}  # fmt: skip
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OpenAISandbox, str]]:
    made = OpenAISandbox()
    with serve(made) as base_url:
        yield made, base_url


@pytest.fixture
def sandbox(served: tuple[OpenAISandbox, str]) -> OpenAISandbox:
    served[0].reset()
    return served[0]


@pytest.fixture
def url(served: tuple[OpenAISandbox, str], sandbox: OpenAISandbox) -> str:
    return served[1]


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0, timeout=5) as made:
        yield made


@pytest.fixture
async def wire(url: str) -> AsyncIterator[dict[str, Any]]:
    """Arguments for langchain's classes; the connection pool is ours, because theirs is never closed."""
    async with openai.DefaultAsyncHttpxClient() as pool:
        yield {
            "base_url": f"{url}/v1",
            "api_key": "x",
            "model": "m",
            "max_retries": 0,
            "http_async_client": pool,
        }


def test_plain_answer_and_recorded_request(sandbox: OpenAISandbox, client: openai.OpenAI) -> None:
    sandbox.script(Reply(text="Grüß Gott", prompt_tokens=11, completion_tokens=3, cached_tokens=4))
    answer = client.chat.completions.create(model="m", messages=HELLO, temperature=0)
    assert answer.choices[0].message.content == "Grüß Gott"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        11,
        3,
        14,
    )
    assert sandbox.chat_requests() == [{"model": "m", "messages": HELLO, "temperature": 0}]
    sandbox.verify()


@pytest.mark.parametrize("include_usage", [False, True])
def test_streamed_usage_only_when_asked(
    sandbox: OpenAISandbox, client: openai.OpenAI, include_usage: bool
) -> None:
    sandbox.script("one two three")
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    seen = list(client.chat.completions.create(model="m", messages=HELLO, stream=True, **options))
    pieces = [c.choices[0].delta.content for c in seen if c.choices and c.choices[0].delta.content]
    assert pieces == ["one ", "two ", "three"]
    assert sum(chunk.usage is not None for chunk in seen) == include_usage


async def test_langchain_streams_tool_call_deltas(sandbox: OpenAISandbox, wire: dict[str, Any]) -> None:
    sandbox.script(
        Reply(tool_calls=(ToolCall("find_slots", {"day": "2026-11-24"}), ToolCall("find_slots", {})))
    )
    parts = [part async for part in ChatOpenAI(**wire, stream_usage=True).bind_tools([SPEC]).astream("Hi")]
    argument_parts = [
        c["args"] for part in parts if isinstance(part, AIMessageChunk) for c in part.tool_call_chunks
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part  # type: ignore[assignment]  # adding chunks of one class gives that class
    assert isinstance(whole, AIMessageChunk)
    assert [(c["name"], c["args"], c["id"]) for c in whole.tool_calls] == [
        ("find_slots", {"day": "2026-11-24"}, "call_1_0"),
        ("find_slots", {}, "call_1_1"),
    ]
    assert argument_parts == ["", '{"day":', ' "2026-', '11-24"}', "", "{", "}"]
    assert whole.usage_metadata is not None
    assert sandbox.chat_requests()[0]["stream_options"] == {"include_usage": True}
    assert sandbox.chat_requests()[0]["tools"][0]["function"]["name"] == "find_slots"


async def test_langchain_plain_and_callable_script(sandbox: OpenAISandbox, wire: dict[str, Any]) -> None:
    sandbox.script(lambda body: Reply(text=body["messages"][-1]["content"][::-1]))
    assert (await ChatOpenAI(**wire).ainvoke([HumanMessage("abc")])).content == "cba"


async def test_embeddings_in_both_encodings(client: openai.OpenAI, wire: dict[str, Any]) -> None:
    floats = client.embeddings.create(
        model="e", input=["red bike", "blue"], encoding_format="float", dimensions=8
    )
    packed = client.embeddings.create(model="e", input="red bike", encoding_format="base64", dimensions=8)
    default = client.embeddings.create(model="e", input="red bike", dimensions=8)
    assert isinstance(packed.data[0].embedding, str)
    assert np.allclose(floats.data[0].embedding, default.data[0].embedding)
    assert np.isclose(np.linalg.norm(floats.data[1].embedding), 1)
    assert len(client.embeddings.create(model="e", input="x").data[0].embedding) == 1536
    made = OpenAIEmbeddings(**wire, check_embedding_ctx_length=False)
    vectors = np.array(await made.aembed_documents(["a red bike", "the red bike", "an invoice of June"]))
    assert vectors[0] @ vectors[1] > 0.5 > vectors[0] @ vectors[2]


def test_moderations_and_models(sandbox: OpenAISandbox, client: openai.OpenAI) -> None:
    sandbox.flag("idiot")
    bad, good = client.moderations.create(input=["You IDIOT", "You are kind"]).results
    assert (bad.flagged, bad.categories.harassment, good.flagged) == (True, True, False)
    assert good.category_scores.self_harm_intent == 0.01
    assert "gpt-4o-mini" in [model.id for model in client.models.list()]


def test_rate_limit_then_success(sandbox: OpenAISandbox, client: openai.OpenAI) -> None:
    sandbox.script("fine")
    sandbox.fault(Fault.rate_limit(times=2, retry_after=7))
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="m", messages=HELLO)
        assert caught.value.response.headers["retry-after"] == "7"
    assert client.chat.completions.create(model="m", messages=HELLO).choices[0].message.content == "fine"


def test_fault_bound_to_a_path(sandbox: OpenAISandbox, client: openai.OpenAI) -> None:
    sandbox.fault(Fault("status", status=503, path="/embeddings"))
    sandbox.script("fine")
    assert client.chat.completions.create(model="m", messages=HELLO).choices[0].message.content == "fine"
    with pytest.raises(openai.InternalServerError, match="fault 503"):
        client.embeddings.create(model="e", input="x")


def test_stall_before_the_first_byte(sandbox: OpenAISandbox, client: openai.OpenAI) -> None:
    sandbox.fault(Fault("stall_before", seconds=30))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(model="m", messages=HELLO)
    assert len(sandbox.chat_requests()) == 1


def test_stall_in_the_middle_shows_the_first_half(sandbox: OpenAISandbox, client: openai.OpenAI) -> None:
    sandbox.fault(Fault("stall_mid", seconds=30))
    sandbox.script("one two three four")
    stream = client.with_options(timeout=0.3).chat.completions.create(model="m", messages=HELLO, stream=True)
    seen = []
    with stream, pytest.raises(openai.APITimeoutError):  # noqa: PT012  # the error comes while reading
        for chunk in stream:
            seen.append(chunk.choices[0].delta.content)  # noqa: PERF401  # what was read before the error counts
    assert seen == ["", "one ", "two "]


def test_a_released_stall_goes_on(sandbox: OpenAISandbox, client: openai.OpenAI) -> None:
    sandbox.fault(Fault("stall_mid", seconds=30))
    sandbox.script("one two three four")
    seen = []
    with client.chat.completions.create(model="m", messages=HELLO, stream=True) as stream:
        for chunk in stream:
            seen.append(chunk.choices[0].delta.content)
            sandbox.release()
    assert seen == ["", "one ", "two ", "three ", "four", None]


def test_half_a_stream_then_a_closed_connection(sandbox: OpenAISandbox, client: openai.OpenAI) -> None:
    sandbox.fault(Fault("half_stream"))
    sandbox.script("one two three four")
    stream = client.chat.completions.create(model="m", messages=HELLO, stream=True)
    seen = []
    with stream, pytest.raises(openai.APIConnectionError):  # noqa: PT012  # the error comes while reading
        for chunk in stream:
            seen.append(chunk.choices[0].delta.content)  # noqa: PERF401  # what was read before the error counts
    assert seen == ["", "one ", "two "]


async def test_malformed_arguments(sandbox: OpenAISandbox, wire: dict[str, Any]) -> None:
    sandbox.fault(Fault("malformed_arguments"))
    sandbox.script(Reply(tool_calls=(ToolCall("find_slots", {"day": "today"}),)))
    answer = await ChatOpenAI(**wire).bind_tools([SPEC]).ainvoke("Hi")
    assert [call["args"] for call in answer.invalid_tool_calls] == ['{"day": "today']


CALL = {"role": "assistant", "content": None, "tool_calls": [
    {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}  # fmt: skip
RESULT = {"role": "tool", "tool_call_id": "t1", "content": "ok"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"messages": HELLO}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": [{"role": "robot", "content": "x"}]}, "role"),
        ({"model": "m", "messages": [{"role": "user"}]}, "content"),
        ({"model": "m", "messages": [*HELLO, RESULT]}, "preceding message"),
        ({"model": "m", "messages": [*HELLO, CALL, {**RESULT, "tool_call_id": "t2"}]}, "preceding message"),
        ({"model": "m", "messages": [*HELLO, CALL, RESULT, RESULT]}, "preceding message"),
        ({"model": "m", "messages": [*HELLO, CALL, *HELLO]}, "responding to each"),
        ({"model": "m", "messages": [*HELLO, CALL]}, "without a response"),
        ({"model": "m", "messages": HELLO, "stream_options": {}}, "stream_options"),
        ({"model": "m", "messages": HELLO, "tools": [{"function": {"name": "a b"}}]}, "tools"),
    ],
)
def test_requests_the_real_api_refuses(
    sandbox: OpenAISandbox, url: str, body: dict[str, Any], reason: str
) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers={"authorization": "Bearer x"})
    assert answer.status_code == 400
    assert reason in answer.json()["error"]["message"]
    assert sandbox.chat_requests() == [body]


def test_tool_round_trip_is_accepted(sandbox: OpenAISandbox, client: openai.OpenAI) -> None:
    sandbox.script("done")
    messages: Any = [*HELLO, CALL, RESULT]
    assert client.chat.completions.create(model="m", messages=messages).choices[0].message.content == "done"


def test_wrong_key_is_refused() -> None:
    sandbox = OpenAISandbox(api_key="right")
    with serve(sandbox) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.models.list()
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/v1/models", headers={"authorization": "Bearer right"}).status_code == 200


def test_an_empty_script_fails_loudly(sandbox: OpenAISandbox, client: openai.OpenAI) -> None:
    with pytest.raises(
        openai.InternalServerError, match="sandbox: no scripted answer for m: 'Hello'"
    ) as caught:
        client.chat.completions.create(model="m", messages=HELLO)
    assert caught.value.status_code == 599
    with pytest.raises(AssertionError, match="0 scripted answers unused, 1 requests unscripted"):
        sandbox.verify()
    sandbox.default(lambda _: Reply(text="by default"))
    assert (
        client.chat.completions.create(model="m", messages=HELLO).choices[0].message.content == "by default"
    )
    sandbox.script("left over")
    with pytest.raises(AssertionError, match="1 scripted answers unused"):
        sandbox.verify()


def test_control_over_http(url: str, client: openai.OpenAI) -> None:
    control = f"{url}/__control"
    call = {"name": "find_slots", "arguments": {"day": "today"}}
    script = {"replies": [{"text": "hi"}, {"tool_calls": [call]}], "default": {"text": "again"}}
    assert httpx.post(f"{control}/script", json=script).status_code == 204
    assert (
        httpx.post(f"{control}/faults", json={"faults": [{"kind": "status", "status": 500}]}).status_code
        == 204
    )
    with pytest.raises(openai.InternalServerError, match="fault 500"):
        client.chat.completions.create(model="m", messages=HELLO)
    messages = [
        client.chat.completions.create(model="m", messages=HELLO).choices[0].message for _ in range(3)
    ]
    assert [message.content for message in messages] == ["hi", None, "again"]
    client.models.list()
    seen = httpx.get(f"{control}/requests", params={"path": "/chat/completions"}).json()
    assert seen == [{"path": "/v1/chat/completions", "body": {"model": "m", "messages": HELLO}}] * 4
    assert httpx.post(f"{control}/reset").status_code == 204
    assert httpx.get(f"{control}/requests").json() == []
