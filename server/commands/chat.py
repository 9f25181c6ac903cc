"""The widget's conversation in a terminal: the same socket, the same protocol."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from typing import Any
from uuid import uuid4

import websockets

from server.commands.environment import running_state
from server.embedded import ROOT
from storage.errors import ConfigurationError

ANSWER_SECONDS = 120.0


def chat(*, as_json: bool) -> int:
    """Talk to the installation in the data folder; one that does not run is started for as long as it takes.

    With ``as_json``, for programs: one line of text in on standard input, one JSON object out: reply, agent,
    language, citations (document, page, quote), thread_id, message_id. Exit 1 where no answer came.
    """
    with _installation() as state:
        return asyncio.run(_once(state) if as_json else _talk(state))


@contextlib.contextmanager
def _installation() -> Any:
    state = running_state()
    if state is not None:
        yield state
        return
    print("Nothing runs here yet; starting it for this conversation …", file=sys.stderr)
    parent = subprocess.Popen(
        [sys.executable, "-m", "server", "run"], cwd=ROOT, stdout=sys.stderr, stdin=subprocess.DEVNULL
    )
    try:
        while (state := running_state()) is None:
            if parent.poll() is not None:
                raise ConfigurationError("It did not start; the lines above say why.")
            time.sleep(0.1)
        yield state
    finally:
        parent.terminate()
        parent.wait()


def _widget_key(api: str) -> str:
    with urllib.request.urlopen(f"{api}/demo") as page:  # noqa: S310  # our own API
        html = page.read().decode()
    return str(html.split('data-key="', 1)[1].split('"', 1)[0])


class _Conversation:
    """A visitor at the widget's socket."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self.thread_id = ""

    async def hello(self, key: str) -> None:
        await self._write({"t": "hello", "v": 1, "key": key, "sid": None, "cur": 0})
        ready = await self._read()
        if ready["t"] != "ready":
            raise ConfigurationError(ready.get("message", "The API refused the conversation."))
        self.thread_id = ready["thread"]

    async def ask(self, text: str, draft: Any = None) -> dict[str, Any]:
        """Send a message and wait for its answer.

        Raises:
            ConfigurationError: the message was refused.
        """
        cid = str(uuid4())
        await self._write({"t": "msg", "cid": cid, "text": text})
        message_id = ""
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                frame = await self._read()
                if frame["t"] == "ack":
                    message_id = frame["id"]
                elif frame["t"] == "draft" and draft is not None:
                    draft(frame["text"])
                elif frame["t"] == "err":
                    raise ConfigurationError(frame["message"])
                elif frame["t"] == "msg" and not frame["me"]:
                    return {**frame, "question_id": message_id}

    async def _write(self, frame: dict[str, Any]) -> None:
        await self._socket.send(json.dumps(frame))

    async def _read(self) -> dict[str, Any]:
        while True:
            frame: dict[str, Any] = json.loads(await self._socket.recv())
            if frame["t"] != "ping":
                return frame
            await self._write({"t": "pong"})


def _connect(state: dict[str, Any]) -> Any:
    return websockets.connect(
        state["api"].replace("http", "ws", 1) + "/widget/v1/socket", max_size=2**20, proxy=None
    )


async def _once(state: dict[str, Any]) -> int:
    text = sys.stdin.readline().rstrip("\n")
    async with _connect(state) as socket:
        conversation = _Conversation(socket)
        await conversation.hello(_widget_key(state["api"]))
        answer = await conversation.ask(text)
    out = {
        "reply": answer["text"],
        "agent": answer["agent"],
        "language": answer["language"],
        "citations": [
            {key: item[key] for key in ("document", "page", "quote")} for item in answer["citations"]
        ],
        "thread_id": conversation.thread_id,
        "message_id": answer["question_id"],
    }
    print(json.dumps(out, ensure_ascii=False))
    return 0


async def _talk(state: dict[str, Any]) -> int:
    print("You talk to an AI. An empty line or Ctrl-D ends the conversation.\n")
    async with _connect(state) as socket:
        conversation = _Conversation(socket)
        await conversation.hello(_widget_key(state["api"]))
        while True:
            line = await asyncio.to_thread(_line)
            if not line:
                return 0
            try:
                answer = await conversation.ask(
                    line, draft=lambda text: print(f"\r\x1b[2K… {text[-70:]}", end="", flush=True)
                )
            except ConfigurationError as error:
                print(f"  ({error.message})\n")
                continue
            print(f"\r\x1b[2K{answer['agent']}: {answer['text']}")
            for citation in answer["citations"]:
                print(
                    f"  [{citation['n']}] {citation['document']}, page {citation['page']}: “{citation['quote']}”"
                )
            print()


def _line() -> str:
    try:
        return input("you: ").strip()
    except EOFError:
        return ""
