"""Classes of limits on routes, over a real Redis."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from litestar import Litestar, WebSocket, get, post, websocket

from server.embedded import free_port
from server.protection.edge import Protection
from server.protection.limits import CLASSES, classes_of
from server.protection.settings import ProtectionSettings
from storage.errors import ConfigurationError
from storage.limits import RateLimiter
from tests.server.protection.edge_app import Book, caller, error_of, make_app, protected
from tests.support.servers import Addresses


@get("/open", opt={"public": True, "limit": "public"})
async def open_route() -> str:
    return "open"


@post("/login", opt={"public": True, "limit": "login"})
async def login() -> str:
    return "token"


@get("/hook", opt={"public": True, "limit": "webhook"})
async def hook() -> str:
    return "taken"


@get("/health", opt={"public": True, "limit": "health"})
async def health() -> str:
    return "well"


@get("/mine")
async def mine() -> str:
    return "mine"


@websocket("/socket", opt={"public": True, "limit": "public"})
async def socket(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


ROUTES = (open_route, login, hook, health, mine, socket)
OWN: dict[str, Any] = {"trusted_proxies": "127.0.0.1/32"}


def nobody_before() -> dict[str, str]:
    """A client's address that no other test uses: Redis is shared."""
    tail = uuid4().hex
    return {"x-forwarded-for": f"2001:db8:{tail[:4]}:{tail[4:8]}::1"}


async def test_the_address_is_counted_before_anybody_asks_who_it_is(addresses: Addresses) -> None:
    limits = {"read": {"ip": "2/3600:2"}}
    who = nobody_before()
    async with protected(*ROUTES, redis_url=addresses.redis_url, rate_limits=limits, **OWN) as client:
        found = [await client.get("/mine", headers=who) for _ in range(3)]
        assert [error_of(answer) for answer in found] == [
            (401, "UNAUTHENTICATED"),
            (401, "UNAUTHENTICATED"),
            (429, "RATE_LIMITED"),
        ]
        assert found[2].json()["error"]["details"] == {"limit": "ip"}
        assert 1790 <= int(found[2].headers["retry-after"]) <= 1800
        assert (await client.get("/mine", headers=nobody_before() | caller(uuid4()))).status_code == 200


async def test_what_the_answer_says_of_the_limit(addresses: Addresses) -> None:
    limits = {"public": {"ip": "60/60:3"}}
    who = nobody_before()
    async with protected(*ROUTES, redis_url=addresses.redis_url, rate_limits=limits, **OWN) as client:
        first = await client.get("/open", headers=who)
        assert first.headers["ratelimit-policy"] == '"ip";q=60;w=60'
        assert first.headers["ratelimit"] == '"ip";r=2;t=1'
        assert [first.headers[f"ratelimit-{name}"] for name in ("limit", "remaining", "reset")] == [
            "3",
            "2",
            "1",
        ]
        assert "retry-after" not in first.headers


async def test_user_and_tenant_are_counted_and_tenants_apart(addresses: Addresses) -> None:
    limits = {"read": {"user": "2/3600:2", "tenant": "3/3600:3"}}
    tenant, other = uuid4(), uuid4()
    async with protected(*ROUTES, redis_url=addresses.redis_url, rate_limits=limits, **OWN) as client:

        async def ask(whose: Any, user: str) -> tuple[int, str | None]:
            answer = await client.get("/mine", headers=caller(whose, user) | nobody_before())
            if answer.status_code == 200:
                return 200, None
            return answer.status_code, answer.json()["error"]["details"]["limit"]

        assert [await ask(tenant, "ann") for _ in range(3)] == [(200, None), (200, None), (429, "user")]
        assert [await ask(tenant, "bob") for _ in range(2)] == [(200, None), (429, "tenant")]
        assert await ask(other, "ann") == (200, None)


async def test_health_is_not_counted_and_unknown_addresses_are(addresses: Addresses) -> None:
    limits = {"default": {"ip": "2/3600:2"}}
    who = nobody_before()
    async with protected(*ROUTES, redis_url=addresses.redis_url, rate_limits=limits, **OWN) as client:
        found = [await client.get(f"/wp-admin/{number}", headers=who) for number in range(3)]
        assert [error_of(answer) for answer in found] == [
            (404, "NOT_FOUND"),
            (404, "NOT_FOUND"),
            (429, "RATE_LIMITED"),
        ]
        assert "content-security-policy" in found[2].headers
        for _ in range(5):
            well = await client.get("/health", headers=who)
            assert (well.status_code, "ratelimit" in well.headers) == (200, False)


async def test_a_flood_gets_its_burst_and_nobody_else_is_hindered(addresses: Addresses) -> None:
    limits = {"public": {"ip": "60/3600:10"}}
    who = nobody_before()
    async with protected(*ROUTES, redis_url=addresses.redis_url, rate_limits=limits, **OWN) as client:
        found = await asyncio.gather(*(client.get("/open", headers=who) for _ in range(60)))
        statuses = [answer.status_code for answer in found]
        assert (statuses.count(200), statuses.count(429)) == (10, 50)
        assert (await client.get("/open", headers=nobody_before())).status_code == 200


async def test_without_redis_webhooks_pass_and_sign_ins_do_not() -> None:
    async with protected(*ROUTES, redis_url=f"redis://127.0.0.1:{free_port()}") as client:
        assert (await client.get("/hook")).text == "taken"
        assert (await client.get("/mine", headers=caller())).text == "mine"
        refused = await client.post("/login")
        assert error_of(refused) == (503, "UPSTREAM_UNAVAILABLE")
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/health")).status_code == 200


async def test_a_forwarded_address_of_a_stranger_is_not_believed(addresses: Addresses) -> None:
    """The client of these tests is 127.0.0.1; here it is no proxy, so each of its inventions is the same client."""
    limits = {"public": {"ip": "1/3600:1"}}
    async with protected(
        *ROUTES, redis_url=addresses.redis_url, rate_limits=limits, trusted_proxies="10.0.0.0/8"
    ) as client:
        await client.get("/open", headers=nobody_before())
        assert (await client.get("/open", headers=nobody_before())).status_code == 429


async def knock(app: Litestar, path: str, headers: dict[str, str], *, denial: bool) -> list[dict[str, Any]]:
    """What the server is told when a socket's handshake comes."""
    said: list[dict[str, Any]] = []
    scope = {
        "type": "websocket",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}} if denial else {},
    }

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    called: Any = app
    await called(scope, receive, send)
    return said


async def test_a_socket_is_counted_and_refused_with_a_status_and_headers(addresses: Addresses) -> None:
    settings = ProtectionSettings(rate_limits={"public": {"ip": "1/3600:1"}}, trusted_proxies="127.0.0.1/32")
    protection = Protection(settings, RateLimiter(addresses.redis_url), Book({}))
    app, who = make_app(protection, *ROUTES), nobody_before()
    taken = await knock(app, "/socket", who, denial=True)
    assert [message["type"] for message in taken] == ["websocket.accept", "websocket.send", "websocket.close"]
    (closed,) = await knock(app, "/socket", who, denial=False)
    assert (closed["type"], closed["code"]) == ("websocket.close", 4429)
    for path, status, code in (("/socket", 429, "RATE_LIMITED"), ("/nowhere", 404, "NOT_FOUND")):
        start, body = await knock(app, path, who, denial=True)
        headers = dict(start["headers"])
        assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
        assert json.loads(body["body"])["error"]["code"] == code
        assert headers[b"content-security-policy"].startswith(b"default-src 'none'")
        assert (b"retry-after" in headers) is (status == 429)
    await protection.aclose()


@pytest.mark.parametrize(
    "wrong",
    [
        {"unheard": {"ip": "1/1"}},
        {"login": {"someone": "1/1"}},
        {"login": {"ip": "0/60"}},
        {"login": {"ip": "many"}},
        {"login": {"on_failure": "maybe"}},
    ],
)
def test_limits_that_say_nothing_stop_the_start(wrong: dict[str, dict[str, str]]) -> None:
    with pytest.raises(ConfigurationError, match="RATE_LIMITS"):
        classes_of(wrong)


def test_an_installation_may_say_otherwise() -> None:
    made = classes_of(
        {"login": {"ip": "5/60:2", "user": "off", "on_failure": "open"}, "read": {"key": "7/60"}}
    )
    assert (made["login"].rates["ip"].requests, made["login"].rates["ip"].burst) == (5, 2)
    assert ("user" in made["login"].rates, made["login"].on_failure) == (False, "open")
    assert made["read"].rates["key"].burst == 7
    assert made["read"].rates["ip"] == CLASSES["read"].rates["ip"]
    assert {name for name, kind in CLASSES.items() if kind.on_failure == "closed"} == {"login", "export"}
