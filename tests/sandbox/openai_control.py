"""The OpenAI sandbox's /__control routes: script, faults and records for a test in another process."""

from typing import Any

from litestar import Request, get, post
from litestar.datastructures import State
from litestar.params import FromQuery

from tests.sandbox.openai import Fault, OpenAISandbox, Reply


def _sandbox(request: Request[Any, Any, State]) -> OpenAISandbox:
    sandbox: OpenAISandbox = request.app.state.sandbox
    return sandbox


@post("/__control/script", status_code=204)
async def script(request: Request[Any, Any, State]) -> None:
    """Queue `{"replies": [{"text"} | {"tool_calls": [{"name", "arguments"}]}], "default": {..}?}`."""
    body = await request.json()
    sandbox = _sandbox(request)
    sandbox.script(*(Reply.from_json(reply) for reply in body.get("replies", ())))
    if "default" in body:
        reply = Reply.from_json(body["default"])
        sandbox.default(lambda _: reply)


@post("/__control/faults", status_code=204)
async def faults(request: Request[Any, Any, State]) -> None:
    """Queue `{"faults": [{"kind", "times", "status", "retry_after", "seconds", "path"}]}`."""
    body = await request.json()
    _sandbox(request).fault(*(Fault(**fault) for fault in body["faults"]))


@get("/__control/requests")
async def requests(request: Request[Any, Any, State], path: FromQuery[str] = "") -> list[dict[str, Any]]:
    """List the recorded requests as `[{"path", "body"}]`; `?path=` keeps those that end so."""
    return [{"path": seen.path, "body": seen.body} for seen in _sandbox(request).requests(path)]


@post("/__control/reset", status_code=204)
async def reset(request: Request[Any, Any, State]) -> None:
    """Forget everything."""
    _sandbox(request).reset()


CONTROL = [script, faults, requests, reset]
