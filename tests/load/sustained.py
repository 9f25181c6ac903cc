"""Figure (b): sustained turns a second with everything running as `make run` runs it: API, worker, PostgreSQL, Redis, Chroma.

Visitors write over real sockets, each the next question as soon as the answer to the last is there. Once with the built-in offline model,
once with a provider on loopback that answers at once.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import websockets
import yaml

from tests.load.figures import figure, write_figures
from tests.sandbox.openai import OpenAISandbox
from tests.sandbox.openai_wire import Reply
from tests.sandbox.server import serve

ROOT = Path(__file__).resolve().parents[2]
VISITORS = 48  # the widget lets each write once a second, so fewer would measure that
SECONDS = 30.0
ROUTE = '{"agent": "operations", "confidence": 0.9, "language": "en"}'


def measure() -> None:
    """Both models; writes build/bench/sustained.json."""
    questions = [
        item["question"] for item in yaml.safe_load((ROOT / "server/demo/questions.yaml").read_text())
    ]
    figures = []
    with running({}) as state:
        figures += asyncio.run(load(state, questions, "offline model"))
    sandbox = OpenAISandbox()
    sandbox.default(
        lambda request: Reply(ROUTE if request["model"] == "gpt-4o-mini" else "We are open from nine to six.")
    )
    with serve(sandbox) as base_url, running({"OPENAI_BASE_URL": f"{base_url}/v1"}) as state:
        figures += asyncio.run(load(state, questions, "instant provider over HTTP"))
    write_figures("sustained", figures)


@contextmanager
def running(environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    """`python -m server run` in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="secretary-bench-") as folder:
        env = {**os.environ, **environment, "SECRETARY_DATA": folder}
        parent = subprocess.Popen(
            [sys.executable, "-m", "server", "run"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL
        )
        try:
            path = Path(folder) / "state.json"
            deadline = time.monotonic() + 120
            while not path.exists():
                if parent.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the installation did not start")
                time.sleep(0.1)
            yield json.loads(path.read_text())
        finally:
            parent.send_signal(signal.SIGINT)
            parent.wait(60)


async def load(state: dict[str, Any], questions: list[str], name: str) -> list[dict[str, Any]]:
    """Let visitors write for SECONDS; a first round is not counted."""
    with urllib.request.urlopen(state["demo"]) as page:
        key = page.read().decode().split('data-key="', 1)[1].split('"', 1)[0]
    waits: list[float] = []
    stop_at = time.monotonic() + SECONDS + 5
    count_from = time.monotonic() + 5
    await asyncio.gather(
        *(
            _visit(state["api"], key, questions[i:] + questions[:i], count_from, stop_at, waits)
            for i in range(VISITORS)
        )
    )
    waits.sort()
    return [
        figure(f"sustained turns, {name}, {VISITORS} visitors", len(waits) / SECONDS, "turns/s", len(waits)),
        figure(
            f"time to the answer under that load, {name}, median",
            waits[len(waits) // 2] * 1000,
            "ms",
            len(waits),
        ),
        figure(
            f"time to the answer under that load, {name}, p95",
            waits[int(len(waits) * 0.95)] * 1000,
            "ms",
            len(waits),
        ),
    ]


async def _visit(
    api: str, key: str, questions: list[str], count_from: float, stop_at: float, waits: list[float]
) -> None:
    async with websockets.connect(api.replace("http", "ws", 1) + "/widget/v1/socket", proxy=None) as socket:
        await socket.send(json.dumps({"t": "hello", "v": 1, "key": key, "sid": None, "cur": 0}))
        number = 0
        while time.monotonic() < stop_at:
            began = time.monotonic()
            cid = str(uuid4())
            await socket.send(
                json.dumps({"t": "msg", "cid": cid, "text": questions[number % len(questions)]})
            )
            number += 1
            while True:
                frame = json.loads(await socket.recv())
                if frame["t"] == "err":
                    await asyncio.sleep(frame.get("retry", 1))
                    began = time.monotonic()
                    await socket.send(
                        json.dumps({"t": "msg", "cid": cid, "text": questions[number % len(questions)]})
                    )
                if frame["t"] == "msg" and not frame["me"]:
                    break
            if count_from <= time.monotonic() < stop_at:
                waits.append(time.monotonic() - began)
