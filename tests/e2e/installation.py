"""A whole installation as `make run` starts it, in a folder of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0


@dataclass
class Installation:
    """A running one; ``state`` is its state.json."""

    folder: Path
    parent: subprocess.Popen[bytes]
    state: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.folder)

    @property
    def password(self) -> str:
        return str(json.loads((self.folder / "secrets.json").read_text())["staff_password"])

    def command(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`python -m server …` beside it."""
        return subprocess.run(
            [sys.executable, "-m", "server", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
            **options,
        )

    def processes(self) -> list[psutil.Process]:
        """The parent and all below it."""
        process = psutil.Process(self.parent.pid)
        return [process, *process.children(recursive=True)]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "SECRETARY_DATA": str(folder), "MODEL_CACHE_DIR": str(ROOT / "build" / "models")}


def launch(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """`python -m server run`, from another folder than the project's."""
    env = {**environment(folder), "PYTHONPATH": str(ROOT)}
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return _start(env, log, arguments)


def _start(env: dict[str, str], log: IO[bytes], arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "server", "run", *arguments],
        cwd="/",
        env=env,
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
    )


def wait_ready(folder: Path, parent: subprocess.Popen[bytes]) -> Installation:
    """Wait for state.json; fails with the log where the parent ends before."""
    state_file = folder / "state.json"
    deadline = time.monotonic() + START_SECONDS
    # A killed parent has left its own.
    while not (state_file.exists() and json.loads(state_file.read_text())["pid"] == parent.pid):
        log = (folder.parent / f"{folder.name}.log").read_text()
        assert parent.poll() is None, log
        assert time.monotonic() < deadline, log
        time.sleep(0.05)
    return Installation(folder, parent, json.loads(state_file.read_text()))


def wait_gone(processes: list[psutil.Process], seconds: float = 40.0) -> list[psutil.Process]:
    """Those that are still there after a while."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@contextmanager
def installed(folder: Path) -> Iterator[Installation]:
    """Start, hand out, stop by Ctrl-C."""
    parent = launch(folder)
    try:
        yield wait_ready(folder, parent)
    finally:
        parent.send_signal(signal.SIGINT)
        parent.wait(60)
