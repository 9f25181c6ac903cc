"""Bytes on the socket: where one request ends and the next begins is read in one way only (RFC 9112 6.3)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

SEEN: list[tuple[str, bytes]] = []


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that remembers what it was asked."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        part = await receive()
        body += part.get("body", b"")
        if not part.get("more_body"):
            break
    SEEN.append((scope["path"], body))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """As server/commands/api.py sets it up."""
    SEEN.clear()
    config = uvicorn.Config(
        echo,
        port=0,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    yield server.servers[0].sockets[0].getsockname()[1]
    await server.shutdown()


HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nContent-Length: 36",
        b"Content-Length: 4, 36",
        b"Content-Length: +4",
        b"Content-Length: 0x4",
        b"Content-Length : 4",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: \x0bchunked",
    ],
)
async def test_a_message_has_one_end(port: int, head: bytes) -> None:
    """Two answers to where the body ends: refused, or read by Transfer-Encoding alone. What is hidden in a body is never a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    writer.write(b"POST /first HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + head + b"\r\n\r\n" + chunk)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    await writer.wait_closed()
    assert "/smuggled" not in [path for path, _ in SEEN]
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 200")) or answer == b""
    if answer.startswith(b"HTTP/1.1 200"):
        assert SEEN == [("/first", HIDDEN)]
        assert answer.count(b"HTTP/1.1") == 1
