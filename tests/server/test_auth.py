"""Signing in, and what is no proof of having done so."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from litestar import Litestar
from sqlalchemy import text

from server.auth.passwords import Passwords
from server.auth.tokens import ALGORITHM, AUDIENCE, ISSUER, Tokens
from server.deps import Parts
from tests.support.edge import signed_in
from tests.support.servers import SECRET_KEY
from tests.support.world import ALL_SCOPES, STAFF_PASSWORD, TestTenant

LOGIN, ME = "/api/v1/auth/login", "/api/v1/auth/me"


async def test_the_right_password_gives_a_token_that_works(
    client: httpx.AsyncClient, tenant: TestTenant
) -> None:
    answer = await client.post(
        LOGIN, json={"tenant": "acme", "email": " Staff@Acme.example ", "password": STAFF_PASSWORD}
    )
    assert answer.status_code == 200
    token = answer.json()
    assert (token["token_type"], token["expires_in"]) == ("Bearer", 600)
    me = await client.get(ME, headers={"authorization": f"Bearer {token['access_token']}"})
    assert me.json() == {
        "tenant_id": str(tenant.info.id),
        "actor": f"user:{tenant.staff_id}",
        "scopes": sorted(ALL_SCOPES),
    }


async def test_every_wrong_sign_in_gets_the_same_answer(
    client: httpx.AsyncClient, tenant: TestTenant, other_tenant: TestTenant
) -> None:
    right = {"tenant": "acme", "email": tenant.staff_email, "password": STAFF_PASSWORD}
    bodies = set()
    for wrong in (
        {"password": "another password"},
        {"password": ""},
        {"email": "nobody@acme.example"},
        {"tenant": "nobody"},
        {"tenant": "globex"},
        {"email": other_tenant.staff_email},
    ):
        answer = await client.post(LOGIN, json={**right, **wrong})
        content = answer.json()
        assert answer.status_code == 401
        assert content["error"].pop("request_id") == answer.headers["x-request-id"]
        bodies.add(json.dumps(content))
    assert bodies == {
        json.dumps(
            {"error": {"code": "UNAUTHENTICATED", "message": "E-mail or password is wrong.", "details": {}}}
        )
    }


async def test_an_unknown_user_costs_as_much_hashing_as_a_known_one(
    client: httpx.AsyncClient, tenant: TestTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: a clock would tell only on a quiet machine."""
    compared: list[str] = []

    def counting(stored: str, given: str) -> bool:
        compared.append(stored)
        return False

    monkeypatch.setattr("server.auth.passwords._matches", counting)
    for email in (tenant.staff_email, "nobody@acme.example"):
        await client.post(LOGIN, json={"tenant": "acme", "email": email, "password": "x"})
    assert len(compared) == 2
    parameters = {hashed.rsplit("$", 2)[0] for hashed in compared}
    assert parameters == {"$argon2id$v=19$m=19456,t=2,p=1"}


async def test_an_unknown_user_is_not_let_in_with_the_stand_ins_password() -> None:
    assert await Passwords().verify(None, "nobody has this password") is False


async def test_nothing_but_the_three_fields_is_taken(client: httpx.AsyncClient, tenant: TestTenant) -> None:
    answer = await client.post(
        LOGIN,
        json={"tenant": "acme", "email": tenant.staff_email, "password": STAFF_PASSWORD, "scopes": ["admin"]},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")


def claims(tenant: TestTenant, **changed: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(tenant.staff_id),
        "tid": str(tenant.info.id),
        "scopes": list(ALL_SCOPES),
        "jti": str(uuid4()),
        "iat": now,
        "exp": now + timedelta(minutes=5),
    }
    return {key: value for key, value in {**good, **changed}.items() if value is not None}


KEY = f"access-token:{SECRET_KEY}"
LONG_AGO = datetime.now(UTC) - timedelta(hours=1)


def signed(
    content: dict[str, Any], key: str = KEY, algorithm: str = ALGORITHM, typ: str | None = "at+jwt"
) -> str:
    return jwt.encode(content, key, algorithm=algorithm, headers={"typ": typ})


async def test_a_token_made_by_hand_with_all_that_is_needed_works(
    client: httpx.AsyncClient, tenant: TestTenant
) -> None:
    """The forgeries below differ from this one in one thing each."""
    answer = await client.get(ME, headers={"authorization": f"Bearer {signed(claims(tenant))}"})
    assert answer.status_code == 200


WRONG_CLAIMS: list[dict[str, Any]] = [
    {"exp": LONG_AGO},
    {"exp": None},
    {"aud": "another"},
    {"aud": None},
    {"iss": "somebody"},
    {"iss": None},
    {"tid": None},
    {"tid": "acme"},
    {"sub": None},
    {"sub": "staff"},
    {"scopes": None},
    {"scopes": 7},
    {"jti": None},
    {"iat": None},
    {"nbf": datetime.now(UTC) + timedelta(hours=1)},
]


async def test_wrong_claims_are_refused(client: httpx.AsyncClient, tenant: TestTenant) -> None:
    for changed in WRONG_CLAIMS:
        await _refused(client, f"Bearer {signed(claims(tenant, **changed))}", changed)


async def test_forged_tokens_are_refused(client: httpx.AsyncClient, tenant: TestTenant) -> None:
    head, body, signature = signed(claims(tenant)).split(".")
    other = base64.urlsafe_b64encode(json.dumps({"tid": str(uuid4())}).encode()).decode().rstrip("=")
    tokens = {
        "signed with the installation's secret itself": signed(claims(tenant), key=SECRET_KEY),
        "another algorithm": signed(claims(tenant), algorithm="HS384"),
        "another kind of token": signed(claims(tenant), typ="JWT"),
        "no kind": signed(claims(tenant), typ=None),
        "alg none": jwt.encode(claims(tenant), "", algorithm="none", headers={"typ": "at+jwt"}),
        "no signature": f"{head}.{body}.",
        "other content": f"{head}.{other}.{signature}",
        "no token": str(tenant.info.id),
    }
    for how, token in tokens.items():
        await _refused(client, f"Bearer {token}", how)


async def test_other_headers_are_refused(client: httpx.AsyncClient) -> None:
    for header in (None, "", "Bearer", "Bearer ", "Basic dTpw", "Bearer a b", "Bearer ü.ü.ü"):
        await _refused(client, header, header)


async def _refused(client: httpx.AsyncClient, header: str | None, why: object) -> None:
    headers = {} if header is None else {b"authorization": header.encode()}
    answer = await client.get(ME, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHENTICATED"), why


async def test_a_token_of_yesterday_is_refused(client: httpx.AsyncClient, tenant: TestTenant) -> None:
    token = Tokens(SECRET_KEY, minutes=-1).issue(tenant.info.id, tenant.staff_id, ALL_SCOPES)
    await _refused(client, f"Bearer {token}", "expired")


async def test_a_missing_scope_is_named_and_nothing_is_done(
    client: httpx.AsyncClient, app: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    reader = signed_in(app, tenant, ("crm:read",))
    answer = await client.post("/api/v1/crm/contacts", json={"email": "a@b.example"}, headers=reader)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "FORBIDDEN"
    assert answer.json()["error"]["details"] == {"missing_scopes": ["crm:write"]}
    async with parts.database.tenant_session(tenant.context) as session:
        assert await session.scalar(text("select count(*) from contacts")) == 0
        assert await session.scalar(text("select count(*) from audit_log")) == 0
