"""The API's page and the widget's files: served by us, whole, and without a word to another host."""

import re
from typing import Any

import httpx
from litestar import Litestar
from litestar.routes import HTTPRoute

from server.deps import Parts
from tests.support.world import make_tenant

ADDRESSES = re.compile(r"""(?:src|href|url)\s*[=(:]\s*["']?([^"'\s)>]+)""")


async def test_the_page_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "://" not in page.text
    named = ADDRESSES.findall(page.text)
    assert named == ["data:,", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/docs/start.js"]
    for address in named[1:]:
        assert (await client.get(address)).status_code == 200
    start = (await client.get("/docs/start.js")).text
    assert ADDRESSES.findall(start) == ["/docs/openapi.json"]
    style = (await client.get("/docs/swagger-ui.css")).text
    assert [
        found for found in re.findall(r"url\(([^)]*)\)", style) if not found.startswith(("data:", '"data:'))
    ] == []
    assert "@import" not in style


async def test_the_description_names_every_route_and_no_host(
    client: httpx.AsyncClient, app: Litestar
) -> None:
    answer = await client.get("/docs/openapi.json")
    schema: dict[str, Any] = answer.json()
    assert schema["openapi"].startswith("3.1")
    assert "://" not in answer.text
    routes = {route.path_format for route in app.routes if isinstance(route, HTTPRoute)}
    assert set(schema["paths"]) == {path for path in routes if path.startswith(("/api/", "/health/"))}
    assert schema["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


async def test_an_upload_is_described_as_a_form(client: httpx.AsyncClient) -> None:
    schema = (await client.get("/docs/openapi.json")).json()
    body = schema["paths"]["/api/v1/knowledge/documents"]["post"]["requestBody"]["content"]
    assert list(body) == ["multipart/form-data"]


async def test_the_widget_comes_packed_and_plain(client: httpx.AsyncClient) -> None:
    plain = await client.get("/widget/v1/widget.js", headers={"accept-encoding": "identity"})
    packed = await client.get("/widget/v1/widget.js", headers={"accept-encoding": "gzip"})
    assert (plain.status_code, packed.headers["content-encoding"]) == (200, "gzip")
    assert "content-encoding" not in plain.headers
    assert plain.content == packed.content
    assert int(packed.headers["content-length"]) < 8 * 1024
    assert packed.headers["access-control-allow-origin"] == "*"


async def test_the_demo_page_names_its_own_host_only(client: httpx.AsyncClient, parts: Parts) -> None:
    missing = await client.get("/demo")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "NOT_FOUND")
    demo = await make_tenant(parts, "alpenrad")
    for path in ("/", "/demo"):
        page = await client.get(path)
        assert page.status_code == 200
        assert demo.channel.public_key in page.text
        assert set(re.findall(r"\w+://[^/\"'\s]+", page.text)) <= {"http://test"}
        assert "default-src 'self'" in page.headers["content-security-policy"]
