"""Walks over all routes: who gets in, what a safe method changes, what a field takes, what an answer shows."""

import re
from typing import Any, get_args

import msgspec
import psycopg
from litestar import Litestar
from pydantic import BaseModel

from server.deps import Parts
from tests.security.walk import ask, fillings, operations, options, resolved
from tests.server.auth.people import Device
from tests.support.edge import signed_in
from tests.support.world import TestTenant, make_visitor

CONTACTS = "/api/v1/crm/contacts"
# Nobody may ask for these: Litestar's own description of the API, which /docs serves instead.
CLOSED = "/schema"
SQL = (
    "' or '1'='1' --",
    "x'); delete from contacts; --",
    "x' union select email, password_hash from accounts --",
    "\\'; select pg_sleep(30); --",
)
SECRET_NAMES = re.compile(
    r"(?i)(pass|secret|token|hash|digest|cipher|sealed|private|(?<!public_)key$|cookie|pepper|salt)"
)
# Shown once to whoever made them or signed in, or no secrets at all.
SHOWN = {
    "access_token", "refresh_token", "token_type", "secret", "key", "passkey_options", "second_factor_required", "token", "public_key",
    "passkeys", "has_password", "tokens_in", "tokens_out",
}  # fmt: skip

NAMES_ONLY = {("/api/v1/admin/feature-flags/{key}", "key")}  # the flag's name
SCOPES = (
    "inbox:read",
    "crm:read",
    "knowledge:read",
    "members:read",
    "roles:read",
    "keys:read",
    "audit:read",
    "tenant:read",
    "privacy:read",
)


def tables(admin: psycopg.Connection[Any], without: frozenset[str] = frozenset()) -> dict[str, str]:
    """A fingerprint of all rows of each table."""
    names = admin.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'"
    ).fetchall()
    query = "select coalesce(md5(string_agg(t::text, '|' order by t::text)), '') from {} t"
    found = {}
    for (name,) in names:
        if name not in without:
            row = admin.execute(query.format(name).encode()).fetchone()
            assert row is not None
            found[name] = row[0]
    return found


async def test_who_shows_nothing_gets_nothing(running: Litestar) -> None:
    guarded = [one for one in operations(running) if not one.opt.get("public")]
    assert len(guarded) > 80
    for one in guarded:
        answer = await Device(running).ask(one.method, one.address())
        expected = 403 if one.path.startswith(CLOSED) else 401
        assert answer.status_code == expected, one.name
        assert set(answer.json()) == {"error"}


def test_the_ways_in_are_these(app: Litestar) -> None:
    """Read this list when it changes: each is a way to get in, or a page for everybody, and stands in README.md."""
    public = {one.path for one in operations(app) if one.opt.get("public")}
    assert {path for path in public if path.startswith("/api/")} == {
        f"/api/v1/auth/{path}"
        for path in (
            "login", "login/second-factor", "refresh", "sign-up", "verify-email", "password/forgotten", "password/reset",
            "invitations/accept", "sso/callback", "sso/{tenant}",
        )
    }  # fmt: skip
    assert {path for path in public if not path.startswith("/api/")} == {
        "/", "/account", "/account/{name}", "/demo", "/docs", "/docs/openapi.json", "/docs/start.js", "/docs/{name}", "/health/live",
        "/health/ready", "/widget/v1/{name}",
    }  # fmt: skip


async def test_nothing_is_changed_by_looking(
    running: Litestar, parts: Parts, tenant: TestTenant, admin: psycopg.Connection[Any]
) -> None:
    visitor = await make_visitor(parts, tenant)
    await visitor.write("Hello")
    headers = signed_in(running, tenant, tuple(SCOPES))
    ids = {"thread_id": str(visitor.thread_id)}
    # Who looked at what is itself written down; nothing else is.
    before = tables(admin, frozenset({"audit_log", "audit_head"}))
    looked = 0
    for one in operations(running):
        if one.method in {"GET", "HEAD"}:
            device = Device(running)
            device.token = headers["authorization"].removeprefix("Bearer ")
            answer = await device.ask(one.method, one.address(**ids))
            looked += answer.status_code == 200
            assert answer.status_code < 500, one.name
    assert looked >= 20
    assert tables(admin, frozenset({"audit_log", "audit_head"})) == before


async def test_sql_in_any_field_is_text(
    running: Litestar, tenant: TestTenant, other_tenant: TestTenant, admin: psycopg.Connection[Any]
) -> None:
    theirs = {"email": "canary@globex.example", "name": "Canary of Globex"}
    device = Device(running)
    device.token = signed_in(running, other_tenant)["authorization"].removeprefix("Bearer ")
    assert (await device.post(CONTACTS, theirs)).status_code == 201
    query = "select count(*), md5(string_agg(t::text, '')) from contacts t where tenant_id = %s"
    before = admin.execute(query, (other_tenant.info.id,)).fetchone()
    filled: set[tuple[str, str]] = set()
    for one in operations(running):
        for name, asked, body in fillings(one, SQL[len(filled) % len(SQL)]):
            answer = await ask(running, tenant, one, query=asked, body=body)
            assert answer.status_code < 500, f"{one.name} {name}: {answer.text}"
            assert "canary@globex" not in answer.text.lower()
            filled.add((one.name, name))
    assert len(filled) > 60
    # In fields that take any text the same is stored and given back as it was written.
    for number, payload in enumerate(SQL):
        device.token = signed_in(running, tenant)["authorization"].removeprefix("Bearer ")
        made = await device.post(CONTACTS, {"email": f"sql{number}@acme.example", "name": payload})
        assert (made.status_code, made.json()["name"]) == (201, payload)
        found = await device.post("/api/v1/knowledge/search", {"query": payload})
        assert found.status_code == 200
        assert "Canary" not in found.text
    assert admin.execute(query, (other_tenant.info.id,)).fetchone() == before


async def test_numbers_beyond_every_column_are_refused(running: Litestar, tenant: TestTenant) -> None:
    tried = 0
    for one in operations(running):
        for parameter in one.parameters:
            if any(kind.get("type") == "integer" for kind in options(parameter["schema"])):
                for number in (2**31, 2**63, 2**200, -(2**63) - 1):
                    name = parameter["name"]
                    where = {name: str(number)} if parameter["in"] == "path" else {}
                    asked = {name: number} if parameter["in"] == "query" else {}
                    answer = await ask(running, tenant, one, query=asked, **where)
                    assert 400 <= answer.status_code < 500, (
                        f"{one.name} {name}={number}: {answer.status_code}"
                    )
                    tried += 1
        for name, schema in one.body.items():
            if any(kind.get("type") == "integer" for kind in options(schema)):
                for number in (2**63, 2**200):
                    answer = await ask(running, tenant, one, body={name: number})
                    assert 400 <= answer.status_code < 500, (
                        f"{one.name} {name}={number}: {answer.status_code}"
                    )
                    tried += 1
    assert tried > 40


async def test_a_value_of_another_type_is_refused(running: Litestar, tenant: TestTenant) -> None:
    tried = 0
    for one in operations(running):
        for name, _, body in fillings(one, "x"):
            if name in body and isinstance(body[name], str):
                for other in (7, True, ["x"], {"x": 1}):
                    answer = await ask(running, tenant, one, body={**body, name: other})
                    assert 400 <= answer.status_code < 500, f"{one.name} {name}={other}"
                    tried += 1
    assert tried > 120


async def test_a_parameter_that_comes_twice_is_refused_or_read_once(
    running: Litestar, tenant: TestTenant
) -> None:
    device = Device(running)
    device.token = signed_in(running, tenant)["authorization"].removeprefix("Bearer ")
    for path in (
        "/api/v1/inbox/threads?limit=1&limit=200",
        f"{CONTACTS}?limit=2&limit=1",
        "/api/v1/auth/sso/callback?state=a&state=b",
    ):
        assert (await device.get(path)).status_code == 400, path
    # The source of a value is fixed: what a body says is not taken from the address, and the other way round.
    made = await device.post(f"{CONTACTS}?email=from@address.example", {"email": "from@body.example"})
    assert made.json()["email"] == "from@body.example"
    assert (await device.post(f"{CONTACTS}?email=from@address.example", {})).status_code in {400, 422}


async def test_an_address_is_decoded_once(running: Litestar, tenant: TestTenant) -> None:
    device = Device(running)
    device.token = signed_in(running, tenant)["authorization"].removeprefix("Bearer ")
    for path in (
        "/widget/v1/%2e%2e%2fpages.py",
        "/widget/v1/%252e%252e%252fpages.py",
        "/widget/v1/widget%252ejs",
        "/account/..%5cpages.py",
    ):
        assert (await device.get(path)).status_code == 404, path
    assert (await device.get("/widget/v1/widget%2ejs")).status_code == 200
    made = await device.post(CONTACTS, {"email": "a@b.example", "name": "100%2541 &amp; \\u0041"})
    assert made.json()["name"] == "100%2541 &amp; \\u0041"


def structs_of(annotation: Any) -> list[type]:
    """Structures and models that a body is made of."""
    inner = [found for argument in get_args(annotation) for found in structs_of(argument)]
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [
            annotation,
            *(found for one in msgspec.structs.fields(annotation) for found in structs_of(one.type)),
        ]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [
            annotation,
            *(found for one in annotation.model_fields.values() for found in structs_of(one.annotation)),
        ]
    return inner


def bodies(app: Litestar) -> dict[type, str]:
    found: dict[type, str] = {}
    for one in operations(app):
        data = one.handler.parsed_fn_signature.parameters.get("data")
        if data is not None:
            found |= dict.fromkeys(structs_of(data.annotation), one.name)
    return found


def test_bodies_take_no_field_that_is_not_theirs(app: Litestar) -> None:
    """Mass assignment: a field that is not listed refuses the whole request."""
    found = bodies(app)
    assert len(found) > 25
    for kind, name in found.items():
        if kind.__name__ == "Upload":  # one file of a form; other parts are not looked at
            continue
        strict = (
            kind.__struct_config__.forbid_unknown_fields
            if issubclass(kind, msgspec.Struct)
            else kind.model_config.get("extra") == "forbid"  # type: ignore[attr-defined]  # a pydantic model then
        )
        assert strict, f"{name}: {kind.__name__}"
        taken = {"tenant_id", "id", "created_at"} & set(getattr(kind, "__struct_fields__", ()))
        # The platform's operators say into which business they want to be let.
        assert taken == ({"tenant_id"} if name == "POST /api/v1/admin/impersonations" else set()), name


def properties(schema: Any, at: str = "") -> list[tuple[str, dict[str, Any]]]:
    """All named properties in a schema: (name, schema)."""
    if isinstance(schema, list):
        return [found for item in schema for found in properties(item)]
    if not isinstance(schema, dict):
        return []
    own = list(schema.get("properties", {}).items())
    return own + [found for key, value in schema.items() if key != "example" for found in properties(value)]


def test_no_answer_has_a_field_for_a_secret(app: Litestar) -> None:
    seen = 0
    for one in operations(app):
        for name, schema in properties(one.spec.get("responses", {})):
            seen += 1
            if isinstance(schema, dict) and SECRET_NAMES.search(name):
                assert name in SHOWN, f"{one.name}: {name}"
    assert seen > 300


def test_every_field_has_a_type_and_bounds(app: Litestar) -> None:
    without = []
    for one in operations(app):
        for name, schema in one.body.items():
            for kind in options(schema):
                assert kind, f"{one.name} {name}"
                bounded = {"maxLength", "pattern", "enum", "const", "format"} & set(kind)
                if kind.get("type") == "string" and not bounded:
                    without.append(f"{one.name} {name}")
    assert without == []


def test_no_address_takes_a_secret(app: Litestar) -> None:
    """What stands in an address stands in logs, histories and Referer headers."""
    secret = re.compile(r"(?i)pass|secret|token|key|session|cookie|otp|email|phone")
    # A provider's answer to single sign-on comes that way (RFC 6749 4.1.2); it is good once, and for our browser alone.
    provider = {("/api/v1/auth/sso/callback", "code"), ("/api/v1/auth/sso/callback", "state")}
    for one in operations(app):
        for parameter in one.parameters:
            kinds = options(parameter["schema"])
            if parameter["in"] in {"query", "path"} and not any(
                kind.get("format") == "uuid" for kind in kinds
            ):
                name = parameter["name"]
                assert (
                    (one.path, name) in provider or not secret.search(name) or (one.path, name) in NAMES_ONLY
                ), f"{one.name} {name}"


def test_nothing_asks_for_a_hint(app: Litestar) -> None:
    fields = {name for one in operations(app) for name, _ in properties(one.spec)}
    assert "password" in fields
    assert {name for name in fields if re.search(r"(?i)hint|question|maiden|memorable", name)} == set()


def test_the_description_is_resolved() -> None:
    """The walks see through references, also those that lead back to themselves."""
    document = {"paths": {"/x": {"$ref": "#/c/A"}}, "c": {"A": {"b": {"$ref": "#/c/A"}, "type": "string"}}}
    assert resolved(document) == {"paths": {"/x": {"b": {}, "type": "string"}}}
