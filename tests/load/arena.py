"""Servers and workers that may be killed at any time, and are started again: what the chaos run fights in."""

import asyncio
import os
import random
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from server import embedded
from server.embedded import Child
from tests.sandbox.openai import OpenAISandbox
from tests.sandbox.server import serve
from tests.support.nursery import Nursery, kill, lives
from tests.support.servers import (
    MASTER_KEYS,
    SECRET_KEY,
    TEMPLATE,
    Addresses,
    Servers,
    make_template,
    start_servers,
)

ROOT = Path(__file__).resolve().parents[2]
WITH_DISK = ("max_connections=300",)
LEAKS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "DATABASE_APP_URL", "DATABASE_PLATFORM_URL", "EMBEDDING_MODEL")


def volatile(redis: Child) -> Child:
    """The same Redis without its file: after a kill it starts empty."""
    command = list(redis.command)
    command[command.index("--appendonly") + 1] = "no"
    return replace(redis, command=command, process=None)


@dataclass
class Arena:
    """What can be killed.

    Attributes:
        env: settings of the workers.
        killed: how often what was killed.
    """

    servers: Servers
    addresses: Addresses
    sandbox: OpenAISandbox
    nursery: Nursery
    env: dict[str, str]
    workers: list[int] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)
    _starts: int = 0

    def start_worker(self) -> int:
        self._starts += 1
        return self.nursery.start(self.env, self.servers.folder / "logs" / f"worker-{self._starts}.log")

    async def keep(self) -> None:
        """Start again what has died, until cancelled."""
        while True:
            for child in (self.servers.postgres, self.servers.redis):
                if not child.alive:
                    child.start()
            self.workers = [pid if lives(pid) else self.start_worker() for pid in self.workers]
            await asyncio.sleep(0.1)

    async def kill(self, kind: str, chance: random.Random) -> None:
        """Kill something of a kind as soon as there is something that serves: a ``worker`` or ``redis`` with
        -9, ``postgres`` at once and without a checkpoint.
        """
        if kind == "worker":
            while not (alive := [pid for pid in self.workers if lives(pid)]):  # as processes do
                await asyncio.sleep(0.05)
            kill(chance.choice(alive))
        else:
            child: Child = getattr(self.servers, kind)
            while not (child.alive and await asyncio.to_thread(child.ready)):  # as processes do
                await asyncio.sleep(0.05)
            assert child.process is not None
            child.process.send_signal(signal.SIGQUIT if kind == "postgres" else signal.SIGKILL)
            await asyncio.to_thread(child.process.wait)
        self.killed[kind] += 1

    def logs(self) -> Iterator[str]:
        """Lines that workers have written."""
        for path in sorted((self.servers.folder / "logs").glob("worker-*.log")):
            yield from path.read_text(errors="replace").splitlines()


@contextmanager
def arena(workers: int, sandbox: OpenAISandbox) -> Iterator[Arena]:
    """Start all of it. Call from the main thread."""
    for name in LEAKS:
        os.environ.pop(name, None)
    os.environ["MODEL_CACHE_DIR"] = str(ROOT / "build" / "models")
    os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
    os.environ["MASTER_KEYS"] = MASTER_KEYS
    servers = start_servers(WITH_DISK)
    try:
        servers.redis.stop()
        servers.redis = volatile(servers.redis)
        servers.redis.start()
        servers.redis.wait_ready()
        data = Path(tempfile.mkdtemp(prefix="data-", dir=servers.folder))
        addresses = Addresses(servers.postgres_port, servers.redis_url, servers.chroma_url, data)
        make_template(addresses)
        with serve(sandbox) as base_url:
            env = {
                "DATABASE_URL": embedded.postgres_url(servers.postgres_port, "only-for-tests", TEMPLATE),
                "SECRET_KEY": SECRET_KEY,
                "MASTER_KEYS": MASTER_KEYS,
                "REDIS_URL": servers.redis_url,
                "CHROMA_URL": servers.chroma_url,
                "SECRETARY_DATA": str(data),
                "OPENAI_BASE_URL": f"{base_url}/v1",
                "SWEEP_SECONDS": "0.5",
            }
            nursery = Nursery(servers.folder / "logs" / "nursery.log")
            try:
                here = Arena(servers, addresses, sandbox, nursery, env)
                here.workers = [here.start_worker() for _ in range(workers)]
                yield here
            finally:
                nursery.stop()
    finally:
        servers.stop()
