"""Starts workers quickly: a process that has imported the product forks one at each order.

A worker's start costs four seconds of processor time, most of it imports; the tests that kill workers by the
dozen would do little else. What is forked is the real worker, from its command line on; nothing that opens a
connection, draws a random number or starts a thread has run before the fork.
"""

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from server.embedded import ROOT, die_with_parent

_NO_GATE = ""


class Nursery:
    """The parent of workers. Start it from the main thread; what it has started dies with it."""

    def __init__(self, log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.nursery"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )

    def start(self, env: Mapping[str, str], log: Path, gate: Path | None = None) -> int:
        """Start a worker; returns its process id.

        Args:
            env: its settings.
            log: where its output goes.
            gate: a file. With it the worker warms up and then takes no work until the file is there; the file
                may name a place of ``tests.support.killer``, at which it will die.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"env": dict(env), "log": str(log), "gate": str(gate or _NO_GATE)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def stop(self) -> None:
        """End it and all its workers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()


def lives(pid: int) -> bool:
    """Whether a worker of a nursery lives; the nursery leaves no zombies."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal a worker, if it lives."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def marker_of(gate: Path) -> Path:
    """The file that says that the worker behind this gate has been killed at its place."""
    return gate.with_suffix(".killed")


def _wait_at(gate: Path) -> None:
    """Let the worker that is about to run take no work before the gate opens."""
    from tests.support.killer import PLACES, arm

    worker: Any = importlib.import_module("server.worker")
    sweep, listen = worker.sweep_forever, worker.listen
    opened: list[str] = []

    async def at_the_gate() -> None:
        while not gate.exists():  # opened by another process; it takes no time
            await asyncio.sleep(0.01)
        if not opened:
            opened.append(gate.read_text())  # a few bytes
            if opened[0]:
                arm(PLACES[opened[0]], marker_of(gate))

    async def gated_sweep(*args: Any) -> None:
        await at_the_gate()
        await sweep(*args)

    async def gated_listen(*args: Any) -> None:
        await at_the_gate()
        await listen(*args)

    worker.sweep_forever, worker.listen = gated_sweep, gated_listen


def _become_worker(order: dict[str, Any]) -> NoReturn:
    """In the child: what ``python -m server worker`` does."""
    from server.__main__ import main

    code: Any = 1
    try:
        die_with_parent(signal.SIGKILL)()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), 1)
        os.dup2(1, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(order["env"])
        sys.argv = ["server", "worker"]
        if order["gate"]:
            _wait_at(Path(order["gate"]))
        code = main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        os._exit(int(code or 0))


def _preload() -> None:
    import server.__main__
    import server.worker  # noqa: F401  # for the children
    from agents.language import LanguageGuesser
    from agents.supervisor.pii import Masker

    Masker()
    LanguageGuesser(("en", "de")).guess("what is the price of a bicycle")


def main() -> None:
    """Fork a worker for each line on standard input and answer with its process id."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps
    _preload()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_worker(order)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def wait_gone(pid: int, seconds: float = 10.0) -> None:
    """Block until a worker has ended.

    Raises:
        TimeoutError: it lives on.
    """
    deadline = time.monotonic() + seconds
    while lives(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} lives on")
        time.sleep(0.01)


if __name__ == "__main__":
    main()
