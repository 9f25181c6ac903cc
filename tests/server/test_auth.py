"""What is no proof of having signed in. How people sign in is in tests/server/auth."""

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
from server.auth.tokens import ALGORITHM, AUDIENCE, ISSUER, Tokens, key_id, signing_key
from server.deps import Parts
from tests.server.auth.people import AUTH, ME, Device, person
from tests.support.edge import Someone, signed_in, someone
from tests.support.servers import SECRET_KEY
from tests.support.world import TestTenant

KEY, KID = signing_key(SECRET_KEY), key_id(SECRET_KEY)
LONG_AGO = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture
def who(app: Litestar, tenant: TestTenant) -> Someone:
    return someone(app, tenant)


def claims(who: Someone, **changed: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": str(who.account_id),
        "tid": str(who.tenant_id),
        "sid": str(who.session_id),
        "sv": 1,
        "jti": str(uuid4()),
        "iat": now,
        "nbf": now,
        "exp": now + timedelta(minutes=5),
        "amr": ["pwd"],
        "auth_time": int(now.timestamp()),
    }
    return {key: value for key, value in {**good, **changed}.items() if value is not None}


def signed(content: dict[str, Any], key: Any = KEY, algorithm: str = ALGORITHM, **header: Any) -> str:
    whole = {"typ": "at+jwt", "kid": KID, **header}
    return jwt.encode(
        content, key, algorithm=algorithm, headers={k: v for k, v in whole.items() if v is not None}
    )


async def refused(client: httpx.AsyncClient, header: str | None, why: object) -> None:
    headers = {} if header is None else {b"authorization": header.encode()}
    answer = await client.get(ME, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHENTICATED"), why
    assert "set-cookie" not in answer.headers


async def test_a_token_made_by_hand_with_all_that_is_needed_works(
    client: httpx.AsyncClient, who: Someone
) -> None:
    """The forgeries below differ from this one in one thing each."""
    answer = await client.get(ME, headers={"authorization": f"Bearer {signed(claims(who))}"})
    assert (answer.status_code, answer.json()["email"]) == (200, who.email)


WRONG_CLAIMS: list[dict[str, Any]] = [
    {"exp": LONG_AGO},
    {"exp": None},
    {"aud": "another"},
    {"aud": None},
    {"aud": [AUDIENCE, "another"]},
    {"iss": "somebody"},
    {"iss": None},
    {"tid": None},
    {"tid": "acme"},
    {"tid": str(uuid4())},
    {"sub": None},
    {"sub": "staff"},
    {"sub": str(uuid4())},
    {"sid": None},
    {"sid": str(uuid4())},
    {"sv": None},
    {"sv": 0},
    {"sv": "1"},
    {"sv": True},
    {"amr": None},
    {"amr": "otp"},
    {"jti": None},
    {"iat": None},
    {"nbf": None},
    {"nbf": datetime.now(UTC) + timedelta(hours=1)},
    {"auth_time": None},
]


async def test_wrong_claims_are_refused(client: httpx.AsyncClient, who: Someone) -> None:
    for changed in WRONG_CLAIMS:
        await refused(client, f"Bearer {signed(claims(who, **changed))}", changed)


async def test_rights_in_the_token_are_nobodys_rights(
    client: httpx.AsyncClient, app: Litestar, tenant: TestTenant
) -> None:
    poor = someone(app, tenant, ("crm:read",))
    token = signed(claims(poor, scopes=["members:write"], role="owner", permissions=["inbox:read"]))
    me = await client.get(ME, headers={"authorization": f"Bearer {token}"})
    assert (me.status_code, me.json()["scopes"]) == (200, ["crm:read"])


async def test_forged_tokens_are_refused(client: httpx.AsyncClient, who: Someone) -> None:
    head, body, signature = signed(claims(who)).split(".")
    other = base64.urlsafe_b64encode(json.dumps({"tid": str(uuid4())}).encode()).decode().rstrip("=")
    content = claims(who)
    tokens = {
        "signed with the installation's secret itself": signed(content, key=SECRET_KEY),
        "another algorithm": signed(content, key=KEY * 2, algorithm="HS384"),
        "another kind of token": signed(content, typ="JWT"),
        "no kind": signed(content, typ=None),
        "no key named": signed(content, kid=None),
        "a path as the key's name": signed(content, kid="../../dev/null"),
        "a key brought along": signed(content, jku="https://evil.example/keys"),
        "a key in the header": signed(content, jwk={"kty": "oct", "k": "AAAA"}),
        "alg none": jwt.encode(content, "", algorithm="none", headers={"typ": "at+jwt", "kid": KID}),
        "no signature": f"{head}.{body}.",
        "other content": f"{head}.{other}.{signature}",
        "no token": str(who.tenant_id),
    }
    for how, token in tokens.items():
        await refused(client, f"Bearer {token}", how)


async def test_other_headers_are_refused(client: httpx.AsyncClient) -> None:
    for header in (
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dTpw",
        "Bearer a b",
        "Bearer ü.ü.ü",
        "Bearer sec_live_x",
    ):
        await refused(client, header, header)


async def test_a_token_of_yesterday_is_refused(client: httpx.AsyncClient, who: Someone) -> None:
    token = Tokens(SECRET_KEY, minutes=-1).issue(
        account_id=who.account_id,
        tenant_id=who.tenant_id,
        session_id=who.session_id,
        security_version=1,
        amr=["pwd"],
        auth_time=LONG_AGO,
    )
    await refused(client, f"Bearer {token}", "expired")


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


async def test_an_unknown_user_costs_as_much_hashing_as_a_known_one(
    client: httpx.AsyncClient,
    app: Litestar,
    parts: Parts,
    tenant: TestTenant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted, not timed: a clock would tell only on a quiet machine."""
    compared: list[str] = []

    def counting(stored: str, given: bytes) -> bool:
        compared.append(stored)
        return False

    monkeypatch.setattr("server.auth.passwords._matches", counting)
    known = await person(parts, tenant)
    for email in (known.email, "nobody@acme.example"):
        await Device(app).post(f"{AUTH}/login", {"email": email, "password": "x"})
    assert len(compared) == 2
    parameters = {hashed.rsplit("$", 2)[0] for hashed in compared}
    assert parameters == {"$argon2id$v=19$m=19456,t=2,p=1"}


async def test_an_unknown_user_is_not_let_in_with_the_stand_ins_password() -> None:
    assert await Passwords().verify(None, "nobody has this password") is False
