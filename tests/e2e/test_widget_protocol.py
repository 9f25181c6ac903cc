"""The widget in a real browser, against a small server that speaks the other side of its protocol."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, WebSocket, expect
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

STATIC = Path(__file__).parents[2] / "server" / "channels" / "widget" / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html; charset=utf-8"}
# As strict as a customer's page may be: nothing inline, no eval, no foreign host.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'"
AT = "2026-11-23T14:03:00Z"
CONFIG = {
    "title": "Alpenrad",
    "greeting": "Grüß Gott!",
    "color": "#1f6f5c",
    "lang": "de",
    "limits": {"len": 4000},
}
Frame = dict[str, Any]


class WidgetServer:
    """Serves the page and one thread of messages; faults are plain attributes that a test sets."""

    def __init__(self) -> None:
        self.port = 0
        self.epoch = "e1"
        self.messages: list[Frame] = []
        self.received: list[Frame] = []
        self.sockets: set[ServerConnection] = set()
        self.refuse_with: int | None = None
        self.die_before_ack = False
        self.silent = False
        self.error: Frame | None = None
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def static(self, _: ServerConnection, request: Request) -> Response | None:
        path = request.path.removeprefix("/widget/v1/")
        if path == "socket":
            return None
        file = STATIC / ("demo.html" if path == "/" else path)
        if not file.is_file():
            return Response(404, "Not Found", Headers(), b"")
        body = file.read_text(encoding="utf-8")
        if path == "/":
            body = body.replace("{{ widget_key }}", "pk_test").replace("{{ base_url }}", "")
        headers = Headers(
            {"Content-Type": TYPES[file.suffix], "Content-Security-Policy": POLICY, "Connection": "close"}
        )
        data = body.encode()
        headers["Content-Length"] = str(len(data))
        return Response(200, "OK", headers, data)

    def add(self, text: str, me: int = 0, **more: Any) -> Frame:
        """The next message of the thread, not yet sent to anybody."""
        frame = {"t": "msg", "seq": len(self.messages) + 1, "me": me, "text": text, "at": AT, **more}
        self.messages.append(frame)
        return frame

    async def push(self, *frames: Frame) -> None:
        for socket in list(self.sockets):
            for frame in frames:
                await socket.send(json.dumps(frame))

    async def connection(self, socket: ServerConnection) -> None:
        try:
            async for data in socket:
                frame = json.loads(data)
                async with self._changed:
                    self.received.append(frame)
                    self._changed.notify_all()
                await self.answer(socket, frame)
        except ConnectionClosed:
            pass
        finally:
            self.sockets.discard(socket)

    async def answer(self, socket: ServerConnection, frame: Frame) -> None:
        if frame["t"] == "hello":
            if self.refuse_with:
                await socket.close(self.refuse_with)
                return
            self.sockets.add(socket)
            ready = {"t": "ready", "sid": "s1", "epoch": self.epoch, "cur": frame["cur"], "cfg": CONFIG}
            for part in [ready, *self.messages[frame["cur"] :]]:
                await socket.send(json.dumps(part))
        elif frame["t"] == "sync":
            for part in self.messages[frame["cur"] :]:
                await socket.send(json.dumps(part))
        elif frame["t"] == "msg":
            await self.accept(socket, frame)

    async def accept(self, socket: ServerConnection, frame: Frame) -> None:
        if self.error:
            error, self.error = self.error, None
            await self.push({**error, "t": "err", "cid": frame["cid"]})
            return
        known = [m for m in self.messages if m.get("cid") == frame["cid"]]
        stored = known[0] if known else self.add(frame["text"], me=1, cid=frame["cid"])
        if self.die_before_ack:
            self.die_before_ack = False
            socket.transport.abort()
            return
        ack = {"t": "ack", "cid": frame["cid"], "seq": stored["seq"]}
        await self.push(*([] if self.silent else [ack]), stored)

    def count(self, **wanted: Any) -> int:
        return sum(wanted.items() <= frame.items() for frame in self.received)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for frames of the client; gives up after 8 s with what did arrive."""
        try:
            async with asyncio.timeout(8), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            pytest.fail(f"the widget sent only {self.received}")


@pytest.fixture
async def server() -> AsyncIterator[WidgetServer]:
    fake = WidgetServer()
    async with serve(fake.connection, "127.0.0.1", 0, process_request=fake.static) as listening:
        fake.port = next(iter(listening.sockets)).getsockname()[1]
        yield fake


async def open_chat(page: Page, server: WidgetServer) -> None:
    await page.goto(server.url)
    await page.locator("[data-role=launcher]").click()
    await expect(page.locator("[data-role=status]")).to_have_text("KI-Assistent · online")


async def say(page: Page, text: str) -> None:
    await page.locator("[data-role=input]").fill(text)
    await page.locator("[data-role=send]").click()


async def test_history_is_shown_in_order_and_survives_a_reload(page: Page, server: WidgetServer) -> None:
    server.add("Hallo", me=1, cid="c1")
    server.add("Guten Tag!", agent="sales")
    await open_chat(page, server)
    bubbles = page.locator("[data-role=own], [data-role=reply]")
    await expect(bubbles).to_have_text(["Hallo", "Guten Tag!"])
    await server.until(lambda: server.count(t="got", seq=2) == 1)
    server.messages[0]["text"] = "never sent twice"

    await page.reload()

    await server.until(lambda: server.count(t="hello", sid="s1", cur=2) == 1)
    await page.locator("[data-role=launcher]").click()
    await expect(bubbles).to_have_text(["Hallo", "Guten Tag!"])


async def test_a_page_view_alone_opens_no_socket(page: Page, server: WidgetServer) -> None:
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    await page.goto(server.url)
    await expect(page.locator("[data-role=launcher]")).to_have_attribute("aria-label", "Chat öffnen")
    assert sockets == []
    await page.locator("[data-role=launcher]").click()
    await expect(page.locator("[data-role=status]")).to_have_text("KI-Assistent · online")
    assert [socket.url for socket in sockets] == [f"ws://127.0.0.1:{server.port}/widget/v1/socket"]


async def test_own_message_is_acknowledged_and_shown_once(page: Page, server: WidgetServer) -> None:
    await open_chat(page, server)
    await page.locator("[data-role=input]").fill("Was kostet")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("ein Service?")
    await page.keyboard.press("Enter")
    own = page.locator("[data-role=own]")
    await expect(own).to_have_text(["Was kostet\nein Service?"])
    await expect(page.locator("[data-seq='1'][data-state=sent]")).to_have_count(1)
    await expect(page.locator("[data-role=input]")).to_have_value("")
    assert await page.evaluate("Object.keys(localStorage).filter(k => k.includes(':out:'))") == []


async def test_a_gap_is_synced_and_a_repeat_is_only_acknowledged(page: Page, server: WidgetServer) -> None:
    await open_chat(page, server)
    first, second, third = server.add("eins"), server.add("zwei"), server.add("drei")
    await server.push(first, third)
    replies = page.locator("[data-role=reply]")
    await expect(replies).to_have_text(["eins", "zwei", "drei"])
    assert server.count(t="sync", cur=1) == 1

    await server.push(second)
    await server.until(lambda: server.count(t="got", seq=3) == 2)
    await expect(replies).to_have_text(["eins", "zwei", "drei"])


async def test_a_message_without_ack_is_sent_again_with_the_same_id(page: Page, server: WidgetServer) -> None:
    await open_chat(page, server)
    server.die_before_ack = True
    await say(page, "Bitte einen Termin")
    await server.until(lambda: server.count(t="msg", text="Bitte einen Termin") == 2)
    sent = [frame["cid"] for frame in server.received if frame["t"] == "msg"]
    assert sent[0] == sent[1]
    await expect(page.locator("[data-state=sent]")).to_have_count(1)
    await expect(page.locator("[data-role=own]")).to_have_text(["Bitte einen Termin"])
    assert [m["text"] for m in server.messages] == ["Bitte einen Termin"]


async def test_the_numbered_message_counts_as_its_ack(page: Page, server: WidgetServer) -> None:
    server.silent = True
    await open_chat(page, server)
    await say(page, "Hallo")
    await expect(page.locator("[data-seq='1'][data-state=sent]")).to_have_count(1)
    assert await page.evaluate("Object.keys(localStorage).filter(k => k.includes(':out:'))") == []


async def test_an_unsent_message_survives_a_reload(page: Page, server: WidgetServer) -> None:
    await open_chat(page, server)
    server.error = {"code": "RATE_LIMITED", "message": "Bitte kurz warten.", "retry": 5}
    await say(page, "Hallo?")
    failed = page.locator("[data-state=failed]")
    await expect(failed).to_contain_text("Bitte kurz warten.")

    await page.reload()
    await page.locator("[data-role=launcher]").click()
    await expect(failed).to_contain_text("Hallo?")
    await failed.locator("[data-role=retry]").click()

    await expect(page.locator("[data-seq='1'][data-state=sent]")).to_have_count(1)
    assert len({frame["cid"] for frame in server.received if frame["t"] == "msg"}) == 1


async def test_the_final_message_replaces_the_draft(page: Page, server: WidgetServer) -> None:
    await open_chat(page, server)
    await server.push({"t": "typing", "on": True})
    await expect(page.locator("[data-role=typing]")).to_have_count(1)
    await server.push({"t": "draft", "id": "t1", "text": "Ein großer"})
    await server.push({"t": "draft", "id": "t1", "text": "Ein großer Service"})
    await expect(page.locator("[data-role=draft]")).to_have_text(["Ein großer Service"])
    await expect(page.locator("[data-role=typing]")).to_have_count(0)
    source = {"n": 1, "document": "Preise 2026", "page": 2, "quote": "Großer Service 119 €"}
    await server.push(server.add("Ein großer Service kostet 119 € [1].", agent="sales", citations=[source]))

    await expect(page.locator("[data-role=draft]")).to_have_count(0)
    await expect(page.locator("[data-role=reply]")).to_have_text(["Ein großer Service kostet 119 € [1]."])
    citation = page.locator("[data-role=citation]")
    await expect(citation.locator("summary")).to_have_text("1 Preise 2026, S. 2")
    await expect(citation.locator("blockquote")).to_be_hidden()
    await page.get_by_role("button", name="Quellen [1]").click()
    await expect(citation.locator("blockquote")).to_have_text("Großer Service 119 €")


async def test_another_epoch_forgets_the_old_history(page: Page, server: WidgetServer) -> None:
    server.add("alt eins")
    server.add("alt zwei")
    await open_chat(page, server)
    replies = page.locator("[data-role=reply]")
    await expect(replies).to_have_text(["alt eins", "alt zwei"])
    server.epoch, server.messages = "e2", []
    server.add("neu eins")
    for socket in list(server.sockets):
        socket.transport.abort()
    await expect(replies).to_have_text(["neu eins"])
    assert server.count(t="sync", cur=0) == 1


@pytest.mark.parametrize("code", [4401, 4403])
async def test_a_final_close_code_stops_the_widget(page: Page, server: WidgetServer, code: int) -> None:
    server.refuse_with = code
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    await page.clock.install()
    await page.goto(server.url)
    await page.locator("[data-role=launcher]").click()
    await expect(page.locator("[data-role=notice]")).to_have_text(
        "Der Chat ist auf dieser Seite nicht verfügbar."
    )
    await expect(page.locator("[data-role=input]")).to_be_disabled()
    await page.clock.fast_forward(120_000)
    await page.evaluate("dispatchEvent(new Event('online'))")
    assert len(sockets) == 1


async def test_silence_of_45_seconds_reconnects(page: Page, server: WidgetServer) -> None:
    await page.clock.install()
    await open_chat(page, server)
    await page.clock.fast_forward(44_000)
    await server.push({"t": "ping"})
    await server.until(lambda: server.count(t="pong") == 1)
    await page.clock.fast_forward(44_000)
    assert server.count(t="hello") == 1
    await page.clock.fast_forward(2_000)
    await page.clock.fast_forward(1_000)
    await server.until(lambda: server.count(t="hello") == 2)


async def test_markup_stays_text_everywhere(page: Page, server: WidgetServer) -> None:
    evil = "<img src=x onerror=window.hit=1><script>window.hit=1</script> javascript:alert(1) https://example.com/?a=1."
    server.add(evil, me=1, cid="c1")
    server.add(evil, citations=[{"n": 1, "document": evil, "page": None, "quote": evil}])
    await open_chat(page, server)
    await server.push({"t": "err", "code": "X", "message": evil})
    await expect(page.locator("[data-role=notice]")).to_have_text(evil)
    await expect(page.locator("[data-role=reply]")).to_have_text([evil])
    await expect(page.locator("[data-role=own]")).to_have_text([evil])
    hrefs = await page.locator("[data-role=reply] a").evaluate_all("links => links.map(a => [a.href, a.rel])")
    assert hrefs == [["https://example.com/?a=1", "noopener noreferrer"]]
    assert await page.locator("[data-role=panel] :is(img, script)").count() == 0
    assert await page.evaluate("window.hit") is None


async def test_keyboard_focus_and_labels(page: Page, server: WidgetServer) -> None:
    await page.goto(server.url)
    launcher, panel = page.locator("[data-role=launcher]"), page.locator("[data-role=panel]")
    await launcher.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog", name="Alpenrad")).to_be_visible()
    await expect(page.get_by_label("Ihre Nachricht")).to_be_focused()
    await expect(launcher).to_have_attribute("aria-expanded", "true")
    await page.keyboard.press("Escape")
    await expect(panel).to_be_hidden()
    await expect(launcher).to_be_focused()
    await expect(launcher).to_have_attribute("aria-expanded", "false")


async def test_replies_while_closed_are_counted(page: Page, server: WidgetServer) -> None:
    await open_chat(page, server)
    await page.keyboard.press("Escape")
    await server.push(server.add("eins"), server.add("zwei"))
    await expect(page.locator("[data-role=unread]")).to_have_text("2")
    await page.locator("[data-role=launcher]").click()
    await expect(page.locator("[data-role=unread]")).to_be_hidden()


async def test_blocked_storage_does_not_break_the_chat(page: Page, server: WidgetServer) -> None:
    await page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('SecurityError') }})"
    )
    await open_chat(page, server)
    await say(page, "Hallo")
    await expect(page.locator("[data-seq='1'][data-state=sent]")).to_have_count(1)


async def test_loading_the_script_twice_makes_one_widget(page: Page, server: WidgetServer) -> None:
    await page.goto(server.url)
    await page.add_script_tag(url=f"{server.url}/widget/v1/widget.js")
    await expect(page.locator("ai-secretary")).to_have_count(1)


async def test_a_question_of_the_page_is_asked(page: Page, server: WidgetServer) -> None:
    await page.goto(server.url)
    question = page.locator(".demo [data-secretary-ask]").nth(2)
    await question.click()
    await server.until(lambda: server.count(t="msg", text="What are your opening hours on Saturday?") == 1)


def test_the_widget_is_small() -> None:
    assert len(gzip.compress((STATIC / "widget.js").read_bytes(), 9)) < 8 * 1024
