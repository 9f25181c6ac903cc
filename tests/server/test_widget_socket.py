"""The widget's socket on a real server: what a visitor sends is stored once, what is wrong is refused by name."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
import uvicorn
from sqlalchemy import text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin

from server.app import create_app
from server.commands.api import MAX_SOCKET_FRAME
from server.deps import Parts
from storage.repositories import threads
from tests.sandbox.openai import OpenAISandbox
from tests.support.world import TestTenant, answering, count, make_tenant

Frame = dict[str, Any]
SITE = "https://shop.example"


class _Server(uvicorn.Server):
    """A server that leaves the test run's signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture
async def url(parts: Parts) -> AsyncIterator[str]:
    """The address of the socket, on a server with the product's own settings."""
    config = uvicorn.Config(
        create_app(parts),
        host="127.0.0.1",
        port=0,
        ws="websockets-sansio",
        ws_max_size=MAX_SOCKET_FRAME,
        log_config=None,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            assert not serving.done()
            await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"ws://127.0.0.1:{port}/widget/v1/socket"
    server.should_exit = True
    async with asyncio.timeout(10):
        await serving


@pytest.fixture
async def shop(parts: Parts) -> TestTenant:
    """A tenant whose widget one site may use."""
    return await make_tenant(parts, "acme", origins=(SITE,))


@dataclass
class Widget:
    """A visitor's side of the wire."""

    socket: ClientConnection
    ready: Frame = field(default_factory=dict)
    passed: list[Frame] = field(default_factory=list)

    async def send(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def until(self, *kinds: str, **fields: Any) -> Frame:
        """The next frame of these kinds with these fields; what was passed over on the way is kept for later."""
        for kept in self.passed:
            if _fits(kept, kinds, fields):
                self.passed.remove(kept)
                return kept
        async with asyncio.timeout(10):
            while True:
                frame: Frame = json.loads(await self.socket.recv())
                if _fits(frame, kinds, fields):
                    return frame
                self.passed.append(frame)

    async def write(self, body: Any, cid: str | None = None) -> Frame:
        """Send a message and wait for what becomes of it: an ack or an err."""
        cid = cid or uuid4().hex
        await self.send(t="msg", cid=cid, text=body)
        return await self.until("ack", "err", cid=cid)

    async def closed(self) -> int:
        """The code with which the server ends it."""
        with suppress(ConnectionClosed):
            async with asyncio.timeout(10):
                while True:
                    await self.socket.recv()
        assert self.socket.close_code is not None
        return self.socket.close_code


def _fits(frame: Frame, kinds: tuple[str, ...], fields: Frame) -> bool:
    return frame["t"] in kinds and all(frame.get(key) == value for key, value in fields.items())


@asynccontextmanager
async def dialled(url: str, origin: str | None = SITE) -> AsyncIterator[Widget]:
    async with connect(url, origin=None if origin is None else Origin(origin), max_size=None) as socket:
        yield Widget(socket)


@asynccontextmanager
async def visiting(url: str, tenant: TestTenant, **hello: Any) -> AsyncIterator[Widget]:
    """A visitor who has said hello and was let in."""
    async with dialled(url) as widget:
        await widget.send(t="hello", v=1, key=tenant.channel.public_key, **hello)
        widget.ready = await widget.until("ready")
        yield widget


async def test_hello_ready_message_ack(url: str, shop: TestTenant, parts: Parts) -> None:
    async with visiting(url, shop) as widget:
        ready = widget.ready
        assert (ready["cur"], len(ready["sid"]), len(ready["epoch"])) == (0, 43, 8)
        assert ready["cfg"] == {
            "title": "Acme",
            "greeting": "",
            "color": "#1f6f5c",
            "lang": "en",
            "limits": {"len": 4000},
        }
        await widget.send(t="msg", cid="c1", text="  Hello there ")
        ack = await widget.until("ack")
        message = await widget.until("msg")
    assert (ack["cid"], ack["seq"]) == ("c1", 1)
    assert (message["cid"], message["seq"], message["me"], message["text"]) == ("c1", 1, 1, "Hello there")
    assert message["id"] == ack["id"]
    async with parts.database.tenant_session(shop.context) as session:
        stored = (await session.execute(text("select external_id from threads"))).scalar_one()
    assert ready["sid"] not in stored  # its hash only


async def test_the_reply_comes_down_the_same_socket(
    scripted: OpenAISandbox, url: str, shop: TestTenant, parts: Parts
) -> None:
    scripted.script('{"agent": "sales", "confidence": 0.9, "language": "en"}', "We are open.")
    async with visiting(url, shop) as widget:
        ack = await widget.write("Are you open?", "c1")
        async with answering(parts) as job:
            await job.drain(shop.info.id, UUID(widget.ready["thread"]))
        reply = await widget.until("msg", me=0)
    assert (reply["seq"], reply["text"], reply["agent"]) == (2, "We are open.", "sales")
    assert reply["re"] == ack["id"]
    scripted.verify()


async def test_one_message_delivered_ten_times_is_one_row(
    url: str, shop: TestTenant, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.channels.widget.socket.BURST", 20)
    async with visiting(url, shop) as widget:
        sid = widget.ready["sid"]
        acks = [await widget.write("Once", "c1") for _ in range(5)]
    for _ in range(5):  # and after a reconnect each
        async with visiting(url, shop, sid=sid) as widget:
            acks.append(await widget.write("Once", "c1"))
    assert {(ack["t"], ack["seq"], ack["id"]) for ack in acks} == {("ack", 1, acks[0]["id"])}
    assert await count(parts, shop, "inbox_messages") == 1
    assert await count(parts, shop, "threads") == 1


async def test_resume_from_the_cursor(url: str, shop: TestTenant) -> None:
    async with visiting(url, shop) as widget:
        sid, epoch = widget.ready["sid"], widget.ready["epoch"]
        for number in range(1, 5):
            assert (await widget.write(f"message {number}"))["seq"] == number
    async with visiting(url, shop, sid=sid, cur=2) as widget:
        assert (widget.ready["sid"], widget.ready["epoch"], widget.ready["cur"]) == (sid, epoch, 4)
        assert [(await widget.until("msg"))["text"] for _ in range(2)] == ["message 3", "message 4"]
        # The client lost something after all and asks again from an earlier place.
        await widget.send(t="sync", cur=1)
        assert [(await widget.until("msg"))["seq"] for _ in range(3)] == [2, 3, 4]
    async with visiting(
        url, shop, sid=sid, cur=99
    ) as widget:  # ahead of the server: nothing is skipped later
        assert (await widget.write("message 5"))["seq"] == 5
        assert (await widget.until("msg"))["seq"] == 5


async def test_a_cursor_that_is_none_means_from_the_start(url: str, shop: TestTenant) -> None:
    async with visiting(url, shop) as widget:
        sid = widget.ready["sid"]
        await widget.write("first")
    cursors: list[Any] = [-1, "2", None, True, 2**40, [], 1.5]
    for cursor in cursors:
        async with visiting(url, shop, sid=sid, cur=cursor) as widget:
            assert (await widget.until("msg"))["text"] == "first", cursor


async def test_two_visitors_may_choose_the_same_cid(url: str, shop: TestTenant, parts: Parts) -> None:
    async with visiting(url, shop) as one, visiting(url, shop) as two:
        acks = [await one.write("from one", "c1"), await two.write("from two", "c1")]
    assert [(ack["t"], ack["seq"]) for ack in acks] == [("ack", 1), ("ack", 1)]
    assert acks[0]["id"] != acks[1]["id"]
    assert await count(parts, shop, "inbox_messages") == 2
    assert await count(parts, shop, "threads") == 2


async def test_a_wrong_key_is_refused(url: str, shop: TestTenant, parts: Parts) -> None:
    for key in ("pk_wrong", "", "x" * 5000):
        async with dialled(url) as widget:
            await widget.send(t="hello", v=1, key=key)
            error = await widget.until("err")
            assert (error["code"], error["message"]) == ("UNAUTHENTICATED", "This widget's key is not known.")
            assert await widget.closed() == 4401
    assert await count(parts, shop, "threads") == 0


async def test_a_foreign_page_is_refused(url: str, shop: TestTenant, parts: Parts) -> None:
    for origin in ("https://evil.example", "http://shop.example", f"{SITE}.evil.example", "null"):
        async with dialled(url, origin) as widget:
            await widget.send(t="hello", v=1, key=shop.channel.public_key)
            error = await widget.until("err")
            assert (error["code"], error["message"]) == ("FORBIDDEN", "This page may not use this widget.")
            assert await widget.closed() == 4403
    assert await count(parts, shop, "threads") == 0


NO_HELLO = (
    "",
    "{",
    "[]",
    "7",
    '{"t":"msg"}',
    '{"t":"hello","v":2,"key":"x"}',
    '{"t":"hello","v":1}',
    '{"t":"hello","v":1,"key":7}',
    json.dumps({"t": "hello", "v": 1, "key": "x" * 20_000}),
)


async def test_another_first_frame_is_refused(url: str, shop: TestTenant, parts: Parts) -> None:
    for first in NO_HELLO:
        async with dialled(url) as widget:
            await widget.socket.send(first)
            assert (await widget.until("err"))["code"] == "VALIDATION_ERROR", first[:80]
            assert await widget.closed() == 4400
    assert await count(parts, shop, "threads") == 0


BAD_TEXTS = {
    "empty": ("", "The message is empty. Write something."),
    "blank": (" \n\t\u2003 ", "The message is empty. Write something."),
    "too long": ("x" * 4001, "The message has 4001 characters; 4000 are possible. Send it in parts."),
    "NUL": ("a\x00b", "The message holds characters that are no text."),
    "lone surrogate": ("a\ud83db", "The message holds characters that are no text."),
    "number": (7, "The message must be text."),
    "nothing": (None, "The message must be text."),
    "list": (["a"], "The message must be text."),
}


async def test_bad_texts_are_refused_and_not_stored(
    url: str, shop: TestTenant, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.channels.widget.socket.BURST", 20)
    async with visiting(url, shop) as widget:
        for what, (body, message) in BAD_TEXTS.items():
            error = await widget.write(body)
            assert (error["t"], error["code"], error["message"]) == ("err", "VALIDATION_ERROR", message), what
        assert await count(parts, shop, "inbox_messages") == 0
        assert (await widget.write("and now a good one"))[
            "seq"
        ] == 1  # the socket lives on, no number is lost


async def test_bad_frames_are_refused_and_the_socket_lives(url: str, shop: TestTenant, parts: Parts) -> None:
    async with visiting(url, shop) as widget:
        for frame in ("{", "[]", '"x"', "", '{"t":"drop table"}', "{}", '{"t":"msg","text":"x"}',
                      '{"t":"msg","cid":7,"text":"x"}', '{"t":"msg","cid":"","text":"x"}',
                      json.dumps({"t": "msg", "cid": "a\nb", "text": "x"}),
                      json.dumps({"t": "msg", "cid": "c" * 300, "text": "x"}),
                      json.dumps({"t": "msg", "cid": "c", "text": "x" * 17_000})):  # fmt: skip
            await widget.socket.send(frame)
            assert (await widget.until("err"))["code"] == "VALIDATION_ERROR", frame[:80]
        assert await count(parts, shop, "inbox_messages") == 0
        await widget.send(t="ping")
        await widget.until("pong")


async def test_a_megabyte_ends_the_connection_and_stores_nothing(
    url: str, shop: TestTenant, parts: Parts
) -> None:
    async with visiting(url, shop) as widget:
        await widget.send(t="msg", cid="c", text="x" * 1_000_000)
        assert await widget.closed() == 1009  # message too big, RFC 6455 section 7.4.1
    assert await count(parts, shop, "inbox_messages") == 0


async def test_binary_is_refused_and_stores_nothing(url: str, shop: TestTenant, parts: Parts) -> None:
    async with visiting(url, shop) as widget:
        await widget.socket.send(b"\x00\xff\xfe")
        error = await widget.until("err")
        assert error["code"] == "VALIDATION_ERROR"
    async with dialled(url) as widget:
        await widget.socket.send(b"\x00\xff\xfe")
        assert (await widget.until("err"))["code"] == "VALIDATION_ERROR"
        assert await widget.closed() == 4400
    assert await count(parts, shop, "inbox_messages") == 0


GOOD_TEXTS = {
    "right to left": "שלום, מתי אתם פתוחים? مرحبا",
    "emoji": "👩‍👩‍👧‍👦 🚲🇦🇹 ok 👍🏽",
    "combining": "Z̷͎̈a̸l̴g̶o e\u0301 각",
    "direction marks": "\u202eabc\u202c\u200f",
    "markup": "<script>alert(1)</script> ' \" \\ ⟦EMAIL_1⟧",
    "lines": "one\n\ntwo\r\nthree\ttab",
    "the longest": "ß" * 4000,
    "the longest beyond the first plane": "🚲" * 4000,
}


async def test_every_script_is_stored_as_it_was_typed(
    url: str, shop: TestTenant, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.channels.widget.socket.BURST", 20)
    async with visiting(url, shop) as widget:
        for number, (what, body) in enumerate(GOOD_TEXTS.items(), 1):
            await widget.socket.send(
                json.dumps({"t": "msg", "cid": str(number), "text": body}, ensure_ascii=False)
            )
            ack = await widget.until("ack", cid=str(number))
            assert ack["seq"] == number, what
    async with parts.database.tenant_session(shop.context) as session:
        (thread_id,) = await session.scalars(text("select id from threads"))
        stored = [message.text for message in await threads.messages_after(session, thread_id, 0)]
    assert stored == list(GOOD_TEXTS.values())


async def test_too_many_at_once_wait(url: str, shop: TestTenant, parts: Parts) -> None:
    async with visiting(url, shop) as widget:
        for number in range(12):
            await widget.send(t="msg", cid=f"c{number}", text=f"message {number}")
        answers = [await widget.until("ack", "err", cid=f"c{number}") for number in range(12)]
    kinds = [answer["t"] for answer in answers]
    assert kinds[:8] == ["ack"] * 8
    assert "err" in kinds
    refused = [answer for answer in answers if answer["t"] == "err"]
    assert {(one["code"], one["retry"]) for one in refused} == {("RATE_LIMITED", 2)}
    assert await count(parts, shop, "inbox_messages") == 12 - len(refused)
