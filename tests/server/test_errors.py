"""One shape for every error, with the id that stands in the logs, and nothing of what went wrong inside."""

from typing import Any

import httpx
from litestar import Litestar, get
from sqlalchemy import text

from server.app import create_app
from server.deps import Parts
from tests.support.edge import opened
from tests.support.world import TestTenant

CONTACTS = "/api/v1/crm/contacts"
NOBODY = "018f0000-0000-7000-8000-000000000000"


def envelope(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error in an answer, after a look at everything around it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    content = answer.json()
    assert set(content) == {"error"}
    error: dict[str, Any] = content["error"]
    assert set(error) == {"code", "message", "details", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["request_id"].startswith("req_")
    assert error["message"]
    return {"code": error["code"], "message": error["message"], "details": error["details"]}


async def test_400_what_is_no_json(client: httpx.AsyncClient, staff: dict[str, str]) -> None:
    for content in (b"", b"{", b"\xff\xfe", b"[]", b"null", b'"text"'):
        answer = await client.post(
            CONTACTS, content=content, headers={**staff, "content-type": "application/json"}
        )
        assert envelope(answer, 400)["code"] == "VALIDATION_ERROR", content


async def test_400_names_the_field(client: httpx.AsyncClient, staff: dict[str, str]) -> None:
    wrong = await client.get("/api/v1/inbox/threads?limit=0", headers=staff)
    found = envelope(wrong, 400)
    assert (found["code"], found["message"]) == ("VALIDATION_ERROR", "The request is not valid.")
    assert [field["field"] for field in found["details"]["fields"]] == ["limit"]
    unknown = await client.post(CONTACTS, json={"email": "a@b.example", "tenant_id": NOBODY}, headers=staff)
    assert envelope(unknown, 400)["code"] == "VALIDATION_ERROR"


async def test_a_wrong_value_is_not_repeated_to_the_caller(
    client: httpx.AsyncClient, staff: dict[str, str]
) -> None:
    answer = await client.post(CONTACTS, json={"email": "not-an-address-of-anna"}, headers=staff)
    assert envelope(answer, 422) == {
        "code": "VALIDATION_ERROR",
        "message": "This is no e-mail address.",
        "details": {"field": "email"},
    }


async def test_401_403_404_405(client: httpx.AsyncClient, staff: dict[str, str]) -> None:
    assert envelope(await client.get(CONTACTS), 401)["code"] == "UNAUTHENTICATED"
    assert envelope(await client.get("/schema/openapi.json", headers=staff), 403)["code"] == "FORBIDDEN"
    for path in (
        "/nowhere",
        "/api/v2/crm/contacts",
        f"{CONTACTS}/7",
        "/docs/..%2fapp.py",
        "/widget/v1/frames.py",
    ):
        found = envelope(await client.get(path, headers=staff), 404)
        assert found == {"code": "NOT_FOUND", "message": "No such address.", "details": {}}, path
    known = envelope(await client.get(f"{CONTACTS}/{NOBODY}", headers=staff), 404)
    assert known == {"code": "NOT_FOUND", "message": "No such contact.", "details": {}}
    for method in ("PUT", "PATCH", "DELETE"):
        answer = await client.request(method, CONTACTS, headers=staff)
        assert envelope(answer, 405)["code"] == "METHOD_NOT_ALLOWED"


async def test_413_and_nothing_stored(
    client: httpx.AsyncClient, staff: dict[str, str], parts: Parts, tenant: TestTenant
) -> None:
    answer = await client.post(
        CONTACTS, json={"email": "a@b.example", "name": "x" * 1_000_001}, headers=staff
    )
    assert envelope(answer, 413)["code"] == "TOO_LARGE"
    async with parts.database.tenant_session(tenant.context) as session:
        assert await session.scalar(text("select count(*) from contacts")) == 0


async def test_500_says_nothing_of_the_inside(parts: Parts) -> None:
    @get("/broken", opt={"public": True})
    async def broken() -> str:
        raise RuntimeError("password=hunter2 at /srv/secret.py")

    app: Litestar = create_app(parts)
    app.register(broken)
    async with opened(app) as client:
        answer = await client.get("/broken")
    assert envelope(answer, 500) == {
        "code": "INTERNAL_ERROR",
        "message": "Something went wrong on our side. Tell us the request id.",
        "details": {},
    }
    assert "hunter2" not in answer.text
    assert "secret" not in answer.text


async def test_each_request_has_an_id_of_its_own(client: httpx.AsyncClient) -> None:
    answers = [await client.get("/health/live", headers={"x-request-id": "req_mine"}) for _ in range(2)]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 2
    assert "req_mine" not in ids


async def test_nul_in_a_text_is_refused_and_nothing_stored(
    client: httpx.AsyncClient, staff: dict[str, str], parts: Parts, tenant: TestTenant
) -> None:
    for body in ({"email": "a@b.example", "name": "a\x00b"}, {"email": "a\x00@b.example"}):
        answer = await client.post(CONTACTS, json=body, headers=staff)
        assert envelope(answer, 422)["code"] == "VALIDATION_ERROR", body
    async with parts.database.tenant_session(tenant.context) as session:
        assert await session.scalar(text("select count(*) from contacts")) == 0
