"""A sandbox that speaks the OpenAI wire: the real SDK talks to it, a test scripts it and reads it back."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import State
from litestar.response import Stream

from tests.sandbox import openai_wire as wire
from tests.sandbox.openai_wire import InvalidRequestError, Reply, ToolCall

__all__ = ["Fault", "OpenAISandbox", "Reply", "ToolCall"]

Responder = Callable[[dict[str, Any]], Reply]
FaultKind = Literal["status", "stall_before", "stall_mid", "half_stream", "malformed_arguments"]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next `times` requests.

    Attributes:
        kind: `status` answers with `status`; `stall_before` waits `seconds` before the first byte,
            `stall_mid` in the middle of the stream; `half_stream` sends half the chunks and drops the line;
            `malformed_arguments` cuts the end off the JSON of each tool call's arguments.
        path: the end of the paths it strikes, for example `/chat/completions`; all of /v1 by default.
        retry_after: seconds for the header of that name, on `status` only.
    """

    kind: FaultKind
    times: int = 1
    status: int = 500
    retry_after: int | None = None
    seconds: float = 0.0
    path: str = ""

    @classmethod
    def rate_limit(cls, times: int = 1, retry_after: int = 1) -> "Fault":
        return cls("status", times, status=429, retry_after=retry_after)


@dataclass(frozen=True)
class Recorded:
    """One request as it came: `body` is the parsed JSON, unchanged."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str] = field(repr=False)


class ConnectionCutError(Exception):
    """Raised inside a response's body so that the server drops the connection."""


class OpenAISandbox:
    """State of the fake provider; safe to script from the test's thread while a server's thread answers.

    Args:
        api_key: the only bearer token to accept; None accepts any, as long as one is sent.
    """

    def __init__(self, api_key: str | None = None) -> None:
        self._lock = threading.Lock()
        self._api_key = api_key
        self._awake = threading.Event()
        self.reset()

    def reset(self) -> None:
        """Forget script, faults and requests, and wake every stalled answer."""
        with self._lock:
            self._script: list[Reply | Responder] = []
            self._faults: list[Fault] = []
            self._requests: list[Recorded] = []
            self._default: Responder | None = None
            self._flagged: dict[str, str] = {}
            self._unscripted = 0
            self._awake.set()
            self._awake = threading.Event()

    def script(self, *replies: Reply | Responder | str) -> None:
        """Queue answers for chat completions; a str is a text, a callable gets the request's JSON."""
        with self._lock:
            self._script += [Reply(text=reply) if isinstance(reply, str) else reply for reply in replies]

    def default(self, responder: Responder | None) -> None:
        """Answer with `responder` whenever the script is empty; None goes back to the loud error."""
        with self._lock:
            self._default = responder

    def fault(self, *faults: Fault) -> None:
        """Queue faults; the first one that still has `times` left and fits the path strikes."""
        with self._lock:
            self._faults += faults

    def flag(self, phrase: str, category: str = "harassment") -> None:
        """Let the moderation endpoint flag every text that holds `phrase`."""
        with self._lock:
            self._flagged[phrase] = category

    def requests(self, path: str = "") -> list[Recorded]:
        """The recorded requests to /v1 in order, those whose path ends with `path`."""
        with self._lock:
            return [request for request in self._requests if request.path.endswith(path)]

    def chat_requests(self) -> list[dict[str, Any]]:
        """The bodies of the recorded chat requests, refused ones included."""
        return [request.body for request in self.requests("/chat/completions")]

    def verify(self) -> None:
        """Raise AssertionError where the script was not used up or was asked for more than it had."""
        with self._lock:
            left, unscripted = len(self._script), self._unscripted
        assert (left, unscripted) == (0, 0), (
            f"{left} scripted answers unused, {unscripted} requests unscripted"
        )

    def release(self) -> None:
        """Wake every stalled answer, so that a server can stop at once."""
        self._awake.set()

    def app(self) -> Litestar:
        """The ASGI app: /v1 for the client under test, /__control for the test's script over HTTP."""
        from tests.sandbox.openai_control import CONTROL  # it imports this module for the types

        handlers = [chat_completions, create_embeddings, create_moderation, list_models, *CONTROL]
        return Litestar(handlers, state=State({"sandbox": self}), openapi_config=None, logging_config=None)

    def receive(self, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Fault | None]:
        """Record a request; returns its number from 1 and the fault that strikes it."""
        with self._lock:
            self._requests.append(Recorded(path, body, headers))
            for at, fault in enumerate(self._faults):
                if path.endswith(fault.path):
                    left = [replace(fault, times=fault.times - 1)] if fault.times > 1 else []
                    self._faults[at : at + 1] = left
                    return len(self._requests), fault
            return len(self._requests), None

    def accepts(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        return scheme == "Bearer" and bool(token) and self._api_key in (None, token)

    def answer(self, body: dict[str, Any]) -> Reply | None:
        """The next scripted answer, the default one, or None where there is neither."""
        with self._lock:
            entry: Reply | Responder | None = self._script.pop(0) if self._script else self._default
            self._unscripted += entry is None
        return entry(body) if callable(entry) else entry

    def moderate(self, body: Any) -> dict[str, Any]:
        with self._lock:
            return wire.moderations(body, dict(self._flagged))

    async def stall(self, seconds: float) -> bool:
        """Wait until `seconds` are over or the test releases it; False where it was reset meanwhile."""
        awake, end = self._awake, time.monotonic() + seconds
        while time.monotonic() < end and not awake.is_set():  # set from another thread
            await asyncio.sleep(0.01)
        return awake is self._awake


def error(status: int, message: str, kind: str, **headers: str) -> Response[dict[str, Any]]:
    """The provider's error body, `{"error": {...}}`."""
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return Response(
        body, status_code=status, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )


async def admit(
    request: Request[Any, Any, State],
) -> tuple[int, Any, Fault | None, Response[dict[str, Any]] | None]:
    """Record the request, then stall or refuse it as the faults say: (number, body, fault, refusal)."""
    sandbox: OpenAISandbox = request.app.state.sandbox
    raw = await request.body()
    body = json.loads(raw) if raw else {}
    number, fault = sandbox.receive(request.url.path, body, dict(request.headers))
    refusal = None
    if fault and fault.kind == "stall_before" and not await sandbox.stall(fault.seconds):
        # it belongs to a test that is over, so it must not take an answer of the next one
        return number, body, fault, error(599, "sandbox: reset during the stall", "sandbox_reset")
    if not sandbox.accepts(request.headers.get("authorization", "")):
        refusal = error(401, "Incorrect API key provided", "invalid_request_error")
    elif fault and fault.kind == "status":
        headers = {} if fault.retry_after is None else {"retry_after": str(fault.retry_after)}
        refusal = error(fault.status, f"sandbox: fault {fault.status}", "sandbox_fault", **headers)
    return number, body, fault, refusal


@post("/v1/chat/completions", status_code=200)
async def chat_completions(request: Request[Any, Any, State]) -> Response[Any]:
    number, body, fault, refusal = await admit(request)
    if refusal is not None:
        return refusal
    sandbox: OpenAISandbox = request.app.state.sandbox
    try:
        wire.check_chat_request(body)
    except InvalidRequestError as problem:
        return error(400, str(problem), "invalid_request_error")
    reply = sandbox.answer(body)
    if reply is None:
        last = str(body["messages"][-1].get("content"))[:80]
        return error(599, f"sandbox: no scripted answer for {body['model']}: {last!r}", "sandbox_unscripted")
    if fault and fault.kind == "malformed_arguments":
        cut = [replace(call, arguments=call.raw_arguments()[:-2]) for call in reply.tool_calls]
        reply = replace(reply, tool_calls=tuple(cut))
    if body.get("stream"):
        events = list(wire.chunks(number, body, reply))
        return Stream(stream_events(sandbox, events, fault), media_type="text/event-stream")
    if fault and fault.kind == "stall_mid":
        await sandbox.stall(fault.seconds)
    if fault and fault.kind == "half_stream":
        raise ConnectionCutError
    return Response(wire.completion(number, body, reply))


async def stream_events(sandbox: OpenAISandbox, events: list[Any], fault: Fault | None) -> AsyncIterator[str]:
    middle = len(events) // 2
    for at, event in enumerate(events):
        if fault and at == middle:
            if fault.kind == "stall_mid":
                await sandbox.stall(fault.seconds)
            if fault.kind == "half_stream":
                # the pause lets the chunks before it leave the buffer: a cut before them is another fault
                await asyncio.sleep(0.02)
                raise ConnectionCutError
        yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n"
    yield "data: [DONE]\n\n"


@post("/v1/embeddings", status_code=200)
async def create_embeddings(request: Request[Any, Any, State]) -> Response[Any]:
    _, body, _, refusal = await admit(request)
    if refusal is not None:
        return refusal
    try:
        return Response(wire.embeddings(body))
    except InvalidRequestError as problem:
        return error(400, str(problem), "invalid_request_error")


@post("/v1/moderations", status_code=200)
async def create_moderation(request: Request[Any, Any, State]) -> Response[Any]:
    _, body, _, refusal = await admit(request)
    if refusal is not None:
        return refusal
    try:
        return Response(request.app.state.sandbox.moderate(body))
    except InvalidRequestError as problem:
        return error(400, str(problem), "invalid_request_error")


@get("/v1/models")
async def list_models(request: Request[Any, Any, State]) -> Response[Any]:
    _, _, _, refusal = await admit(request)
    if refusal is not None:
        return refusal
    names = ["gpt-4o-mini", "gpt-4.1-mini", "text-embedding-3-small", "omni-moderation-latest"]
    data = [{"id": name, "object": "model", "created": 1, "owned_by": "sandbox"} for name in names]
    return Response({"object": "list", "data": data})
