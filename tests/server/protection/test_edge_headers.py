"""Headers of every answer, shapes of requests, and which other sites may read answers."""

from typing import Any
from uuid import uuid4

import pytest
from litestar import Response, get, post

from server.protection.cors import CachedOrigins, is_origin
from storage.errors import ConfigurationError
from tests.server.protection.edge_app import ACME, BOOK, GLOBEX, Book, caller, error_of, protected

ACME_SITE, GLOBEX_SITE = "https://app.acme.example", "https://globex.example:8443"


@get("/mine")
async def mine() -> str:
    return "mine"


@post("/mine")
async def make() -> str:
    return "made"


@get("/breaks", opt={"public": True})
async def breaks() -> str:
    raise RuntimeError("a secret of ours")


@get("/page", opt={"public": True})
async def page() -> Response[str]:
    return Response("x", headers={"content-security-policy": "default-src 'self'", "server": "us"})


@get("/widget.js", opt={"public": True})
async def script() -> Response[str]:
    headers = {
        "access-control-allow-origin": "*",
        "access-control-allow-credentials": "true",
        "cache-control": "public, max-age=300",
        "vary": "accept-encoding",
    }
    return Response("x", headers=headers)


ROUTES = (mine, make, breaks, page, script)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/mine", caller(), 200),
        ("GET", "/mine", {}, 401),
        ("GET", "/nowhere", {}, 404),
        ("DELETE", "/mine", caller(), 405),
        ("TRACE", "/mine", caller(), 405),
        ("GET", "/breaks", {}, 500),
        ("GET", "/mine?" + "a" * 8192, caller(), 414),
        ("GET", "/mine", {"x-long": "a" * 33_000}, 431),
    ],
)
async def test_every_answer_is_protected(
    method: str, path: str, headers: dict[str, str], status: int
) -> None:
    async with protected(*ROUTES) as client:
        answer = await client.request(method, path, headers=headers)
    assert answer.status_code == status
    said = answer.headers
    assert said["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
    assert said["referrer-policy"] == "no-referrer"
    assert said["x-content-type-options"] == "nosniff"
    assert said["cross-origin-opener-policy"] == said["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in said["permissions-policy"]
    assert ("server" in said, "strict-transport-security" in said) == (False, False)
    if "/breaks" not in path:
        assert said["cache-control"] == "no-store"
    if status >= 400:
        assert error_of(answer)[0] == status
        assert "secret" not in answer.text


async def test_a_handler_says_otherwise_and_a_public_script_may_be_loaded() -> None:
    async with protected(*ROUTES) as client:
        said = (await client.get("/page")).headers
        assert said.get_list("content-security-policy") == ["default-src 'self'"]
        assert "server" not in said
        loaded = (await client.get("/widget.js", headers={"origin": "https://anywhere.example"})).headers
    assert loaded["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in loaded
    assert loaded["cross-origin-resource-policy"] == "cross-origin"
    assert (loaded["cache-control"], loaded["vary"]) == ("public, max-age=300", "accept-encoding")


async def test_hsts_where_browsers_come_encrypted() -> None:
    expected = "max-age=63072000; includeSubDomains"
    async with protected(*ROUTES, public_url="https://api.example") as client:
        assert (await client.get("/nowhere")).headers["strict-transport-security"] == expected
    async with protected(*ROUTES, trusted_proxies="127.0.0.1/32") as client:
        encrypted = await client.get("/nowhere", headers={"x-forwarded-proto": "https"})
        assert encrypted.headers["strict-transport-security"] == expected
        assert "strict-transport-security" not in (await client.get("/nowhere")).headers
    async with protected(*ROUTES) as client:  # nobody's word
        invented = await client.get("/nowhere", headers={"x-forwarded-proto": "https"})
        assert "strict-transport-security" not in invented.headers


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "PROPFIND", "GETT", "get"])
async def test_methods_that_nobody_has(method: str) -> None:
    async with protected(*ROUTES) as client:
        request = client.build_request("GET", "/nowhere")
        request.method = method
        answer = await client.send(request)
    assert error_of(answer) == (405, "METHOD_NOT_ALLOWED")
    assert "GET" in answer.headers["allow"]


async def test_more_headers_than_anybody_needs() -> None:
    async with protected(*ROUTES) as client:
        answer = await client.get("/mine", headers={f"x-{number}": "1" for number in range(101)})
    assert error_of(answer) == (431, "TOO_LARGE")


def preflight(origin: str) -> dict[str, str]:
    return {"origin": origin, "access-control-request-method": "POST"}


async def test_a_preflight_of_a_listed_origin() -> None:
    async with protected(*ROUTES) as client:
        for origin in (ACME_SITE, GLOBEX_SITE):
            answer = await client.options("/mine", headers=preflight(origin))
            assert (answer.status_code, answer.text) == (204, "")
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert "POST" in answer.headers["access-control-allow-methods"]
            assert "idempotency-key" in answer.headers["access-control-allow-headers"]
            assert answer.headers["vary"] == "Origin"


GAMES = [
    "null",
    "*",
    "https://evil.example",
    "https://app.acme.example.evil.example",
    "https://evil-app.acme.example",
    "https://sub.app.acme.example",
    "https://acme.example",
    "http://app.acme.example",
    "https://app.acme.example:444",
    "https://app.acme.example:443",
    "https://APP.acme.example",
    "HTTPS://app.acme.example",
    "https://app.acme.example/",
    "https://app.acme.example.",
    "https://app.acme.example@evil.example",
    "https://app.acme.example, https://evil.example",
    "https://app_acme.example",
    " https://app.acme.example\t.evil",
    "",
]


@pytest.mark.parametrize("origin", GAMES)
async def test_other_origins_are_never_reflected(origin: str) -> None:
    async with protected(*ROUTES) as client:
        asked = await client.options("/mine", headers=preflight(origin))
        assert error_of(asked) == (403, "FORBIDDEN")
        answers = [
            asked,
            await client.get("/mine", headers=caller() | {"origin": origin}),
            await client.get("/mine", headers={"origin": origin}),
            await client.get("/nowhere", headers={"origin": origin}),
        ]
    assert [answer.status_code for answer in answers] == [403, 200, 401, 404]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "Origin" in answer.headers["vary"]


async def test_the_callers_tenant_decides_on_the_request_itself() -> None:
    async with protected(*ROUTES) as client:
        own = await client.get("/mine", headers=caller(ACME) | {"origin": ACME_SITE})
        foreign = await client.get("/mine", headers=caller(GLOBEX) | {"origin": ACME_SITE})
        nobody = await client.get("/mine", headers={"origin": ACME_SITE})
    assert own.headers["access-control-allow-origin"] == ACME_SITE
    assert own.headers["access-control-allow-credentials"] == "true"
    assert (foreign.status_code, "access-control-allow-origin" in foreign.headers) == (200, False)
    # A 401 may be read by a page that some tenant lists, but never with credentials.
    assert (nobody.status_code, nobody.headers["access-control-allow-origin"]) == (401, ACME_SITE)
    assert "access-control-allow-credentials" not in nobody.headers


@pytest.mark.parametrize(
    ("tenant", "origin", "status"),
    [
        (ACME, None, 201),
        (ACME, "http://test", 201),  # our own pages
        (ACME, ACME_SITE, 201),
        (GLOBEX, ACME_SITE, 403),
        (ACME, "https://evil.example", 403),
        (ACME, "null", 403),
        (ACME, "https://test", 403),
        (ACME, "http://test:81", 403),
    ],
)
async def test_a_cookie_acts_for_listed_pages_only(tenant: Any, origin: str | None, status: int) -> None:
    headers = {"cookie": f"caller={tenant}/ann"} | ({"origin": origin} if origin else {})
    async with protected(*ROUTES) as client:
        answer = await client.post("/mine", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert error_of(answer) == (403, "FORBIDDEN")


async def test_the_book_is_asked_once_in_thirty_seconds_for_yes_and_no() -> None:
    now = [0.0]
    book = Book(BOOK)
    cached = CachedOrigins(book, entries=3, clock=lambda: now[0])
    for _ in range(3):
        assert await cached.known(ACME_SITE)
        assert not await cached.known("https://evil.example")
        assert await cached.allowed(ACME, ACME_SITE)
    assert book.questions == [ACME_SITE, "https://evil.example", ACME_SITE]
    now[0] = 30.0
    assert await cached.known(ACME_SITE)
    assert len(book.questions) == 4
    for number in range(10):  # a stranger's many origins do not fill the memory
        await cached.known(f"https://{number}.example")
    assert len(cached._answers) == 3
    assert not await cached.allowed(uuid4(), ACME_SITE)


@pytest.mark.parametrize("origin", ["https://a.example", "http://localhost:3000", "https://[::1]:8443"])
def test_origins(origin: str) -> None:
    assert is_origin(origin)


@pytest.mark.parametrize(
    "text", [*GAMES[:2], "https://a.example:443", "http://a.example:80", "https://a/b", "a"]
)
def test_no_origins(text: str) -> None:
    assert not is_origin(text)


async def test_an_origin_book_that_fails_costs_the_permission_and_not_the_answer() -> None:
    class Broken(Book):
        async def allowed(self, tenant_id: Any, origin: str) -> bool:
            raise ConnectionError("the database is away")

    async with protected(*ROUTES, book=Broken(BOOK)) as client:
        answer = await client.get("/mine", headers=caller() | {"origin": ACME_SITE})
        assert (answer.text, "access-control-allow-origin" in answer.headers) == ("mine", False)
        acted = await client.post("/mine", headers={"cookie": f"caller={ACME}/ann", "origin": ACME_SITE})
        assert acted.status_code == 500


async def test_our_own_pages_behind_a_proxy_that_encrypts() -> None:
    headers = {"cookie": f"caller={ACME}/ann", "origin": "https://test", "x-forwarded-proto": "https"}
    async with protected(*ROUTES, trusted_proxies="127.0.0.1/32") as client:
        assert (await client.post("/mine", headers=headers)).status_code == 201


async def test_a_mistake_in_a_route_stops_the_start() -> None:
    @get("/unknown", opt={"limit": "unheard of"})
    async def unknown() -> str:
        return ""

    async def mine_first(request: Any) -> None:
        return None

    @get("/hooked", before_request=mine_first)
    async def hooked() -> str:
        return ""

    for handler, word in ((unknown, "unheard of"), (hooked, "before_request")):
        with pytest.raises(ConfigurationError, match=word):
            async with protected(handler):
                pass
