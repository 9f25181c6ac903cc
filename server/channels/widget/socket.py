"""Step 1 of a message's path (widget): a visitor's socket. Checks key and Origin, finds the tenant, stores
what the visitor writes, and sends what the thread has beyond the visitor's cursor.

Nothing depends on a push: each "something new" on the event bus, and each tick of the clock, makes the socket
read the database from its cursor. A lost hint costs seconds, a reconnect costs nothing.
"""

import asyncio
import json
import time
from contextlib import suppress
from typing import Any

import structlog
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect

from server.channels.inbound import MAX_CHARACTERS, receive
from server.channels.widget.frames import (
    CLOSE_KEY,
    CLOSE_ORIGIN,
    CLOSE_PROTOCOL,
    Hello,
    error_frame,
    message_frame,
    new_session_id,
    parse_cursor,
    parse_frame,
    parse_hello,
    visitor_id,
)
from server.channels.widget.send import room
from server.deps import Parts
from storage.errors import AppError, ValidationFailed
from storage.repositories import directory, threads
from storage.repositories.directory import ChannelRef
from storage.tenancy import TenantContext

log = structlog.get_logger(__name__)

PING_SECONDS = 20.0
POLL_SECONDS = 3.0  # how long a reply waits at most when Redis lost the hint
HELLO_SECONDS = 10.0
BURST, PER_SECOND = 8, 1.0  # messages of one socket


@websocket("/widget/v1/socket", opt={"public": True})
async def widget_socket(socket: WebSocket[Any, Any, Any]) -> None:
    """A visitor's connection, from hello to close."""
    await socket.accept()
    parts: Parts = socket.app.state.parts
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            hello = parse_hello(parse_frame(await socket.receive_text()))
    except (ValidationFailed, TimeoutError) as error:
        await _refuse(socket, CLOSE_PROTOCOL, "VALIDATION_ERROR", getattr(error, "message", "No hello came."))
        return
    except WebSocketDisconnect:
        return
    async with parts.database.platform_session(
        "widget: the tenant is known only after the channel is found"
    ) as session:
        channel = await directory.channel_by_key(session, hello.key, "widget")
    if channel is None:
        await _refuse(socket, CLOSE_KEY, "UNAUTHENTICATED", "This widget's key is not known.")
        return
    if not _origin_allowed(socket.headers.get("origin"), channel, parts):
        await _refuse(socket, CLOSE_ORIGIN, "FORBIDDEN", "This page may not use this widget.")
        return
    with suppress(WebSocketDisconnect):
        await _Visit(socket, parts, channel).run(hello)


async def _refuse(socket: WebSocket[Any, Any, Any], close_code: int, code: str, message: str) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_text(json.dumps(error_frame(code, message)))
        await socket.close(code=close_code, reason=message)


def _origin_allowed(origin: str | None, channel: ChannelRef, parts: Parts) -> bool:
    """Browsers always send an Origin, and cannot lie about it. A program sends none: it knows the session id
    or sees nothing.
    """
    if origin is None:
        return parts.settings.terminal_origin
    return "*" in channel.allowed_origins or origin in channel.allowed_origins


class _Visit:
    """One connection of one visitor."""

    def __init__(self, socket: WebSocket[Any, Any, Any], parts: Parts, channel: ChannelRef) -> None:
        self._socket = socket
        self._parts = parts
        self._channel = channel
        self._cursor = 0
        self._fresh = asyncio.Event()
        self._sending = asyncio.Lock()
        self._allowance, self._counted_at = float(BURST), time.monotonic()

    async def run(self, hello: Hello) -> None:
        """Open the thread, then read and write until either side leaves."""
        session_id = hello.session_id or new_session_id()
        external_id = visitor_id(session_id)
        self._context = TenantContext(self._channel.tenant_id, actor=f"contact:{external_id[:20]}")
        async with self._parts.database.tenant_session(self._context) as session:
            self._thread_id, epoch, last_seq = await threads.open_thread(
                session, self._channel.id, external_id
            )
        self._cursor = min(hello.cursor, last_seq)
        await self._send(
            {
                "t": "ready",
                "sid": session_id,
                "epoch": epoch,
                "cur": last_seq,
                "cfg": self._config(),
                "thread": str(self._thread_id),
            }
        )
        bus_room = room(self._context, self._thread_id)
        await self._parts.bus.subscribe(bus_room, self._on_event)
        self._fresh.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write())
                pinger = tasks.create_task(self._ping())
                try:
                    await self._read()
                finally:
                    writer.cancel()
                    pinger.cancel()
        except* (WebSocketDisconnect, RuntimeError, OSError) as gone:
            log.debug("visitor_left", reason=type(gone.exceptions[0]).__name__)
        finally:
            await self._parts.bus.unsubscribe(bus_room, self._on_event)

    def _config(self) -> dict[str, Any]:
        settings = self._channel.settings
        return {
            "title": settings.get("title", self._channel.tenant_name),
            "greeting": settings.get("greeting", ""),
            "color": settings.get("color", "#1f6f5c"),
            "lang": self._channel.languages[0],
            "limits": {"len": MAX_CHARACTERS},
        }

    async def _send(self, frame: dict[str, Any]) -> None:
        async with self._sending:
            await self._socket.send_text(json.dumps(frame, ensure_ascii=False))

    async def _on_event(self, event: dict[str, Any]) -> None:
        if event.get("t") == "new":
            self._fresh.set()
        elif event.get("t") in ("draft", "typing"):
            with suppress(WebSocketDisconnect, RuntimeError):
                await self._send(event)

    async def _read(self) -> None:
        while True:
            data = await self._socket.receive_text()
            frame: dict[str, Any] = {}
            try:
                frame = parse_frame(data)
                await self._handle(frame)
            except AppError as error:
                await self._send(error_frame(error.code, error.message, frame.get("cid")))
            except WebSocketDisconnect:
                raise
            except Exception as error:
                # Most likely the database is restarting: the client keeps the message and sends it again.
                log.warning("widget_frame_failed", error=type(error).__name__)
                await self._send(
                    error_frame("UPSTREAM_UNAVAILABLE", "Please try again in a moment.", None, retry=2)
                )
                await self._socket.close(code=1013)
                return

    async def _handle(self, frame: dict[str, Any]) -> None:
        match frame.get("t"):
            case "msg":
                await self._store(frame)
            case "sync":
                self._cursor = min(self._cursor, parse_cursor(frame.get("cur")))
                self._fresh.set()
            case "got" | "pong":
                pass  # a sign of life
            case "ping":
                await self._send({"t": "pong"})
            case _:
                raise ValidationFailed("This kind of frame is not known.")

    async def _store(self, frame: dict[str, Any]) -> None:
        cid = frame.get("cid")
        # An empty one would make the visitor's next message a repeat of this one.
        if not isinstance(cid, str) or not cid:
            raise ValidationFailed("The message has no cid.", field="cid")
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._counted_at) * PER_SECOND)
        self._counted_at = now
        if self._allowance < 1:
            await self._send(
                error_frame("RATE_LIMITED", "That was fast. Wait a moment, then send it again.", cid, retry=2)
            )
            return
        self._allowance -= 1
        received = await receive(
            self._parts.database,
            self._parts.queue,
            self._context,
            channel_id=self._channel.id,
            thread_id=self._thread_id,
            external_id=self._external_id(cid),
            text=frame.get("text"),
        )
        await self._send({"t": "ack", "cid": cid, "seq": received.seq, "id": str(received.message_id)})
        self._fresh.set()

    def _external_id(self, cid: str) -> str:
        """The client's id, made unique in the channel: two visitors may choose the same one."""
        return f"{self._thread_id}/{cid}"

    async def _write(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._fresh.wait()
            self._fresh.clear()
            try:
                async with self._parts.database.tenant_session(self._context, durable=False) as session:
                    found = await threads.messages_after(session, self._thread_id, self._cursor)
            except Exception as error:  # the database is away for a moment; the next tick reads again
                log.warning("widget_read_failed", error=type(error).__name__)
                continue
            for message in found:
                frame = message_frame(message)
                frame["cid"] = message.external_id.removeprefix(f"{self._thread_id}/")
                await self._send(frame)
                self._cursor = message.seq
            if found:
                self._fresh.set()  # there may be more than one page

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            await self._send({"t": "ping"})
