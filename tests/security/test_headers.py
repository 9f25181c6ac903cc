"""What every answer says about itself, whatever it is: all routes, refusals, unknown addresses."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from litestar import Litestar

from server.auth.cookies import SESSION_COOKIE
from server.deps import Parts
from tests.security.walk import ask, operations
from tests.server.auth.people import AUTH, ME, Device, person
from tests.support.edge import signed_in
from tests.support.world import TestTenant, make_tenant

OUTSIDE = (
    ("GET", "/nowhere", 404),
    ("POST", "/docs", 405),
    ("TRACE", "/", 405),
    ("PROPFIND", "/", 405),
    ("GET", "/" + "a" * 9000, 414),
    ("OPTIONS", "/api/v1/auth/login", 403),
    ("HEAD", "/health/live", 405),
)
# What a web server might show that was never meant to be shown.
LYING_ABOUT = (
    "/.git/HEAD", "/.git/config", "/.svn/entries", "/.env", "/.env.example", "/.data/secrets.json", "/compose.yaml", "/pyproject.toml",
    "/server/app.py", "/server/", "/api/", "/api/v1/", "/docs/", "/widget/", "/widget/v1/", "/account/", "/static/", "/metrics", "/debug",
    "/server-status", "/actuator", "/admin", "/phpinfo.php", "/backup.sql", "/docs/index.html", "/widget/v1/demo.html", "/schema",
    "/schema/openapi.json", "/schema/swagger", "/docs/../server/app.py", "/widget/v1/..%2f..%2f..%2f..%2fsettings.py",
)  # fmt: skip
HTML = ("/", "/demo", "/docs", "/account")


async def every_answer(running: Litestar, tenant: TestTenant) -> AsyncIterator[tuple[str, httpx.Response]]:
    """Each route asked by nobody and by somebody who may do everything, and what is no route."""
    for one in operations(running):
        yield one.name, await Device(running).ask(one.method, one.address())
        yield one.name, await ask(running, tenant, one, body={})
    for path in (
        "/widget/v1/widget.js",
        "/widget/v1/demo.css",
        "/account/account.js",
        "/docs/swagger-ui.css",
        "/docs/swagger-ui-bundle.js",
    ):
        yield path, await Device(running).get(path)
    for method, path, status in OUTSIDE:
        answer = await Device(running).ask(method, path)
        assert answer.status_code == status, f"{method} {path[:40]}"
        yield f"{method} {path[:40]}", answer


async def test_every_answer_has_the_headers_of_its_safety(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    await make_tenant(parts, "alpenrad")  # of the demo page
    statuses = set()
    async for name, answer in every_answer(running, tenant):
        statuses.add(answer.status_code)
        said = answer.headers
        assert said["strict-transport-security"] == "max-age=63072000; includeSubDomains", name
        assert said["x-content-type-options"] == "nosniff", name
        assert said["referrer-policy"] == "no-referrer", name
        policy = dict(
            [*part.split(None, 1), ""][:2]
            for part in said["content-security-policy"].split(";")
            if part.strip()
        )
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'", name
        assert policy.get("object-src", policy["default-src"]) == "'none'", name
        scripts = policy.get("script-src", policy["default-src"])
        assert scripts in ("'none'", "'self'"), name
        assert {"server", "x-powered-by"} & set(said) == set(), name
        assert len(said.get_list("content-security-policy")) == 1, name
    assert statuses >= {200, 400, 401, 403, 404, 405, 414}


async def test_every_answer_names_its_type_and_charset(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    await make_tenant(parts, "alpenrad")
    kinds = set()
    async for name, answer in every_answer(running, tenant):
        if not answer.content:
            continue
        kind, _, parameters = answer.headers["content-type"].partition(";")
        kinds.add(kind)
        if kind == "application/json":  # UTF-8 by its definition (RFC 8259 8.1)
            answer.json()
        elif kind == "application/x-ndjson":
            assert answer.text.isprintable() or answer.text.endswith("\n"), name
        else:
            assert kind.startswith("text/"), f"{name}: {kind}"
            assert parameters.strip() == "charset=utf-8", f"{name}: {answer.headers['content-type']}"
        assert (kind == "text/html") == answer.text.lstrip().lower().startswith("<!doctype html>"), name
    assert kinds >= {"application/json", "text/html", "text/css", "text/javascript"}


async def test_every_cookie_is_for_this_host_over_tls_and_out_of_reach(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    device, pat = Device(running), await person(parts, tenant)
    lines = (await device.login(pat.email, kind="browser")).headers.get_list("set-cookie")
    await device.set_up_totp()
    again = Device(running)
    challenge = (await again.login(pat.email, kind="browser")).json()["challenge"]
    again.secret = device.secret
    lines += (await again.second(challenge, code=again.code())).headers.get_list("set-cookie")
    lines += (await again.post(f"{AUTH}/logout")).headers.get_list("set-cookie")
    async for _, answer in every_answer(running, tenant):
        lines += answer.headers.get_list("set-cookie")
    assert len(lines) >= 5
    for line in lines:
        name, *attributes = line.split("; ")
        assert re.match(r"__Host-[a-z]+=", name), line
        assert {"Path=/", "Secure", "HttpOnly"} <= set(attributes), line
        assert {"SameSite=Lax", "SameSite=Strict"} & set(attributes), line
        assert not [one for one in attributes if one.lower().startswith("domain")], line


async def test_private_answers_are_not_kept(running: Litestar, tenant: TestTenant) -> None:
    seen = 0
    for one in operations(running):
        if not one.opt.get("public"):
            for answer in (
                await Device(running).ask(one.method, one.address()),
                await ask(running, tenant, one, body={}),
            ):
                assert "no-store" in answer.headers["cache-control"], one.name
                seen += 1
    assert seen > 150


async def test_nothing_redirects_but_single_sign_on(running: Litestar, tenant: TestTenant) -> None:
    async for name, answer in every_answer(running, tenant):
        assert not 300 <= answer.status_code < 400, name
        assert "location" not in answer.headers, name
        assert "refresh" not in answer.headers, name
    redirecting = [one.path for one in operations(running) if (one.handler.status_code or 200) // 100 == 3]
    assert redirecting == ["/api/v1/auth/sso/{tenant}"]


@pytest.mark.parametrize("path", LYING_ABOUT)
async def test_no_file_is_served_by_its_path(running: Litestar, tenant: TestTenant, path: str) -> None:
    for headers in ({}, signed_in(running, tenant)):
        device = Device(running)
        device.token = headers.get("authorization", "").removeprefix("Bearer ") or None
        answer = await device.get(path)
        if path in ("/docs/", "/account/"):  # the page itself, by another spelling
            assert answer.text.startswith("<!doctype html>")
            continue
        assert answer.status_code in {403, 404}, path
        assert set(answer.json()) == {"error"}
        assert "Index of" not in answer.text


async def test_signing_out_empties_the_browser(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    device = Device(running)
    await device.login((await person(parts, tenant)).email, kind="browser")
    old = dict(device.cookies)
    out = await device.post(f"{AUTH}/logout")
    assert (out.status_code, out.headers["clear-site-data"]) == (204, '"cache", "storage"')
    assert SESSION_COOKIE not in device.cookies
    assert (await Device(running, cookies=old).get(ME)).status_code == 401


async def test_pages_are_what_they_seem(running: Litestar, parts: Parts) -> None:
    await make_tenant(parts, "alpenrad")
    found: dict[str, Any] = {path: (await Device(running).get(path)).headers["content-type"] for path in HTML}
    assert set(found.values()) == {"text/html; charset=utf-8"}
