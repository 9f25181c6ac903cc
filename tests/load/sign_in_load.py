"""Others' requests while strangers guess passwords: 200 a second, from many addresses, for many people.

An API process as it runs in production, behind a trusted proxy, over loopback HTTP. The attackers and the person whose waits are measured
are a process each, so that neither slows the other's clock more than the machine does. Waits count from the moment at which a request was
due: a server that stands still is not spared the requests that it kept from being sent. The ratio is attacked to quiet, with quiet
measured before and after.
"""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

from server.app import create_app
from server.deps import build_parts
from server.settings import ServerSettings
from tests.load.figures import figure
from tests.support.edge import opened, signed_in
from tests.support.servers import SECRET_KEY, Addresses, settings_for
from tests.support.world import make_tenant

ROOT = Path(__file__).resolve().parents[2]
ATTACKS, SECONDS, ASKS = 200, 20.0, 20  # a second, seconds, a second
ROUTES = ("/api/v1/auth/me", "/api/v1/inbox/threads")
CONNECTIONS = 200
LOADING = 15.0  # seconds in which a client has certainly imported what it needs


class Connection:
    """HTTP/1.1 with keep-alive and nothing else: what measures must cost little."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """The answer's status."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        await reader.readexactly(length)
        if "connection: close" in head:
            writer.close()
            self._streams = None
        return int(head.split(" ", 2)[1])


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def guess() -> bytes:
    """A wrong password for somebody, from somewhere."""
    body = json.dumps({"email": f"{uuid4().hex}@guessed.example", "password": "not the right password"})
    address = f"198.{random.choice((18, 19))}.{random.randrange(256)}.{random.randrange(1, 255)}"  # no secret
    return request(
        "POST",
        "/api/v1/auth/login",
        body.encode(),
        content_type="application/json",
        x_forwarded_for=address,
    )


async def paced(port: int, requests: list[bytes], rate: float, connections: int) -> dict[str, Any]:
    """Send each when it is due: waits in seconds, answers by status, and how many could not be sent in time."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(Connection(port))
    waits: list[float] = []
    statuses: Counter[str] = Counter()
    began = time.perf_counter()

    async def one(number: int, content: bytes) -> None:
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        connection = await free.get()
        try:
            statuses[str(await connection.ask(content))] += 1
        finally:
            free.put_nowait(connection)
        waits.append(time.perf_counter() - due)

    await asyncio.gather(*(one(number, content) for number, content in enumerate(requests)))
    return {"waits": waits, "statuses": statuses, "seconds": time.perf_counter() - began}


async def attack(port: int) -> dict[str, Any]:
    return await paced(port, [guess() for _ in range(int(ATTACKS * SECONDS))], ATTACKS, CONNECTIONS)


async def look(port: int, authorization: str, seconds: float) -> dict[str, Any]:
    both = [request("GET", path, authorization=authorization) for path in ROUTES]
    return await paced(port, [both[number % 2] for number in range(int(ASKS * seconds))], ASKS, 16)


def child(begin: float, *arguments: str) -> "subprocess.Popen[bytes]":
    """One of the two clients in a process of its own; it begins at a time at which it has long been loaded."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.load.sign_in_load", str(begin), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )


def soon() -> float:
    return time.time() + LOADING


def result(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    out, _ = process.communicate(timeout=SECONDS * 5)
    if process.returncode:
        raise RuntimeError("a client failed")
    found: dict[str, Any] = json.loads(out)
    return found


def p95(waits: list[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.95)] * 1000


async def _authorization(addresses: Addresses, database: str) -> str:
    parts = build_parts("bench", ServerSettings(), settings_for(addresses, database))
    try:
        app = create_app(parts)
        async with opened(app):
            tenant = await make_tenant(parts, "sign-in-load")
            return signed_in(app, tenant)["authorization"]
    finally:
        await parts.aclose()


def measure(addresses: Addresses, database: str) -> list[dict[str, Any]]:
    """The figures, over a database that the migrations have built; a tenant is added to it."""
    authorization = asyncio.run(_authorization(addresses, database))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    api = subprocess.Popen(
        [sys.executable, "-m", "server", "api", "--port", str(port)],
        cwd=ROOT,
        env=_environment(addresses, database),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, api)
        looking = ("look", str(port), authorization)
        result(child(soon(), *looking, "5"))  # everything is read and compiled once
        before = result(child(soon(), *looking, str(SECONDS / 2)))
        begin = soon()
        attackers, person = child(begin, "attack", str(port)), child(begin, *looking, str(SECONDS))
        attacked, attacks = result(person), result(attackers)
        after = result(child(soon(), *looking, str(SECONDS / 2)))
    finally:
        api.send_signal(signal.SIGINT)
        api.wait(30)
    return _figures(before, attacked, after, attacks)


def _figures(before: Any, attacked: Any, after: Any, attacks: Any) -> list[dict[str, Any]]:
    quiet = before["waits"] + after["waits"]
    answered = {status for part in (before, attacked, after) for status in part["statuses"]}
    if answered != {"200"}:
        raise RuntimeError(f"the measured requests were answered with {sorted(answered)}")
    sent = sum(attacks["statuses"].values())
    figures = [
        figure("sign-in load: p95 of others, quiet", p95(quiet), "ms", len(quiet)),
        figure("sign-in load: p95 of others, attacked", p95(attacked["waits"]), "ms", len(attacked["waits"])),
        figure("sign-in load: ratio", p95(attacked["waits"]) / p95(quiet), "x", len(quiet)),
        figure("sign-in load: wrong passwords", sent / attacks["seconds"], "1/s", sent),
        figure("sign-in load: p95 of the attackers", p95(attacks["waits"]), "ms", sent),
    ]
    return figures + [
        figure(f"sign-in load: answered with {status}", count, "", sent)
        for status, count in sorted(attacks["statuses"].items())
    ]


def _environment(addresses: Addresses, database: str) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": addresses.database_url(database),
        "SECRET_KEY": SECRET_KEY,
        "REDIS_URL": addresses.redis_url,
        "CHROMA_URL": addresses.chroma_url,
        "SECRETARY_DATA": str(addresses.data_dir),
        "TRUSTED_PROXIES": "127.0.0.1/32",
        # One person asks here as often as many would.
        "RATE_LIMITS": '{"read": {"user": "off", "ip": "off", "tenant": "off"}}',
    }


def _wait_for(port: int, api: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if api.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the API did not start") from None
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    if len(sys.argv) > 1:
        what, client_port = sys.argv[2], int(sys.argv[3])
        time.sleep(max(0.0, float(sys.argv[1]) - time.time()))
        found = asyncio.run(
            attack(client_port) if what == "attack" else look(client_port, sys.argv[4], float(sys.argv[5]))
        )
        print(json.dumps(found))
    else:
        from tests.load.alone import main

        main("sign_in_load", measure)
