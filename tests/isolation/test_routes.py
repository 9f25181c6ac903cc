"""Every route of the application: closed by default, open to the roles that a reviewed list names, and blind to another tenant's ids."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
import yaml
from litestar import Litestar, get
from litestar.routes import HTTPRoute
from msgspec import Meta

from server.app import create_app
from server.protection.limits import CLASSES
from storage.permissions import PERMISSIONS, PLATFORM_PERMISSIONS, SYSTEM_ROLES
from tests.fuzz.identities import WIDE
from tests.isolation.conftest import TwoTenants
from tests.isolation.full import FullTenant, rows_of_people, snapshot
from tests.isolation.walk import CLOSED, CURSORS, Operation, ask, operations, told, without_request_id
from tests.support.edge import opened, signed_in

ROLES_FILE = Path(__file__).with_name("roles.yaml")
# Whoever has all of a business's rights: what such a person cannot do is not a matter of rights.
OWNER = tuple(PERMISSIONS)


@dataclass(frozen=True)
class Edge:
    """The application over the world's parts, and the same person of each tenant for a whole file."""

    world: TwoTenants
    app: Litestar
    client: httpx.AsyncClient
    signed: dict[str, dict[str, str]]

    def headers(self, full: FullTenant) -> dict[str, str]:
        if full.canary not in self.signed:
            self.signed[full.canary] = signed_in(self.app, full.tenant, OWNER)
        return self.signed[full.canary]


@pytest.fixture(scope="module")
async def edge(world: TwoTenants) -> AsyncIterator[Edge]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATE_LIMITS", WIDE)  # thousands of requests of one person
        app = create_app(world.parts)
    async with opened(app) as client:
        yield Edge(world, app, client, {})


def test_every_route_says_who_may_use_it(edge: Edge) -> None:
    walked = operations(edge.app)
    silent = {
        one.path
        for one in walked
        if not (one.opt.get("public") or one.opt.get("scopes") or one.opt.get("self"))
    }
    assert silent == CLOSED
    scopes = {scope for one in walked for scope in one.opt.get("scopes", ())}
    assert scopes <= {*PERMISSIONS, *PLATFORM_PERMISSIONS}
    assert {one.opt["limit"] for one in walked if "limit" in one.opt} <= set(CLASSES)
    described = [one for one in walked if one.opt.get("scopes") or one.opt.get("self")]
    assert [one.name for one in described if not one.spec] == []
    # Nothing is open to everybody and closed at once, and only people can prove that it is them.
    assert not [
        one.name for one in walked if one.opt.get("public") and len(one.opt.keys() & {"scopes", "self"})
    ]
    assert not [one.name for one in walked if one.opt.get("public") and one.opt.get("step_up")]


def test_the_public_routes_are_these(edge: Edge) -> None:
    """Read this list when it changes: nobody has to sign in for what stands here."""
    auth = "/api/v1/auth"
    assert {one.name for one in operations(edge.app) if one.opt.get("public")} == {
        *(f"GET {path}" for path in ("/", "/demo", "/account", "/account/{name}", "/widget/v1/{name}")),
        *(f"GET /docs{path}" for path in ("", "/openapi.json", "/start.js", "/{name}")),
        *(f"GET /health/{path}" for path in ("live", "ready")),
        # They show a password, a token or a code, and are counted as attempts.
        *(f"POST {auth}/{path}" for path in ("login", "login/second-factor", "refresh", "invitations/accept")),
        *(f"POST {auth}/{path}" for path in ("sign-up", "verify-email", "password/forgotten", "password/reset")),
        *(f"GET {auth}/sso/{path}" for path in ("{tenant}", "callback")),
    }  # fmt: skip
    for one in operations(edge.app):
        if one.opt.get("public") and one.path.startswith(auth):
            assert one.opt["limit"] == "login", one.name


def test_roles_open_what_the_reviewed_list_says(edge: Edge) -> None:
    """tests/isolation/roles.yaml: read each change of it. ``people`` cannot be done by API keys, ``proof`` asks for a step-up."""
    found = {}
    for one in operations(edge.app):
        if not (one.opt.get("scopes") or one.opt.get("self")):
            continue
        scopes = set(one.opt.get("scopes", ()))
        roles = [role.key for role in SYSTEM_ROLES if scopes <= set(role.permissions)]
        marks = [
            name
            for name, yes in (
                ("people", one.opt.get("people") or one.opt.get("self") or one.opt.get("step_up")),
                ("proof", one.opt.get("step_up")),
            )
            if yes
        ]
        platform = ["operator"] if scopes and scopes <= set(PLATFORM_PERMISSIONS) else []
        found[one.name] = " ".join(("everybody",) if one.opt.get("self") else (*roles, *platform)) + "".join(
            f", {mark}" for mark in marks
        )
    assert found == yaml.safe_load(ROLES_FILE.read_text(encoding="utf-8"))


async def test_no_route_opens_without_a_token_or_without_its_scopes(edge: Edge) -> None:
    before = snapshot(edge.world.admin, edge.world.a.tenant.info.id, without=("members", "roles"))
    weak = signed_in(edge.app, edge.world.a.tenant, ("something:else",))
    guarded = [one for one in operations(edge.app) if not one.opt.get("public")]
    assert len(guarded) >= 90
    for operation in guarded:
        ids = {place: uuid4() for place in operation.id_parameters if place[0] == "path"}
        variant = next(operation.variants())
        bare = await ask(edge.client, operation, {}, ids, variant)
        assert bare.status == (403 if operation.path in CLOSED else 401), operation.name
        if operation.opt.get("self"):
            continue
        answer = await ask(edge.client, operation, weak, ids, variant)
        assert answer.status == 403, operation.name
        if operation.path not in CLOSED:
            details = without_request_id(answer.raw)["error"]["details"]
            assert details == {"missing_scopes": sorted(operation.opt["scopes"])}
    assert snapshot(edge.world.admin, edge.world.a.tenant.info.id, without=("members", "roles")) == before


async def test_a_handler_that_says_nothing_is_open_to_nobody(edge: Edge) -> None:
    @get("/forgotten")
    async def forgotten() -> str:
        raise AssertionError("the handler ran")

    app = create_app(edge.world.parts)
    app.register(forgotten)
    async with opened(app) as client:
        for headers in ({}, edge.headers(edge.world.a)):
            answer = await client.get("/forgotten", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")


def kind_of(operation: Operation, place: tuple[str, str]) -> int | None:
    """What an id that does not exist gives an owner, put in this place: a status; None where any id is an answer's beginning."""
    if operation.path.startswith("/api/v1/admin/"):
        return 403
    if place[1] in CURSORS:
        return None
    return (
        200 if (operation.method, place[0]) == ("GET", "query") and not operation.opt.get("public") else 404
    )


async def test_another_tenants_id_is_an_id_that_does_not_exist(edge: Edge) -> None:
    a, b = edge.world.a, edge.world.b
    mine = edge.headers(b)
    before = snapshot(edge.world.admin, a.tenant.info.id)
    people = rows_of_people(edge.world.admin, a.tenant.info.id)
    # A record of each kind, and each message: which of them is a dead letter their ids do not tell. All ids: make probes.
    ids = {one for kept in a.ids.values() for one in kept[:1]}
    ids |= {one for table in ("inbox_messages", "outbox") for one in a.ids[table]}
    walked = 0
    for operation in operations(edge.app):
        for place in operation.id_parameters:
            wanted = kind_of(operation, place)
            for variant in operation.variants():
                others = {one: uuid4() for one in operation.id_parameters if one[0] == "path"}
                unknown = await ask(edge.client, operation, mine, {**others, place: uuid4()}, variant)
                where = f"{operation.name} {place} {variant}"
                assert wanted is None or unknown.status == wanted, f"{where}: {unknown}"
                for ident in ids:
                    foreign = await ask(edge.client, operation, mine, {**others, place: ident}, variant)
                    if wanted is None:
                        assert told(a.every_id, a.canary, foreign.raw) == [], where
                    else:
                        assert foreign == unknown, f"{where} {ident}"
                    walked += 1
    assert walked > 2000
    assert snapshot(edge.world.admin, a.tenant.info.id) == before
    assert rows_of_people(edge.world.admin, a.tenant.info.id) == people


async def test_the_walk_knows_the_right_ids(edge: Edge) -> None:
    """The walk above proves nothing where its ids fit nobody: to their owner each reading route opens with one."""
    a = edge.world.a
    for operation in operations(edge.app):
        places = [place for place in operation.id_parameters if place[0] == "path"]
        if operation.method == "GET" and len(places) == 1 and not operation.path.startswith("/api/v1/admin/"):
            variant = next(operation.variants())
            statuses = {
                (await ask(edge.client, operation, edge.headers(a), {places[0]: ident}, variant)).status
                for ident in a.every_id
            }
            assert statuses == {200, 404}, operation.path


async def test_every_place_for_an_id_is_known(edge: Edge) -> None:
    """Path parameters that the description leaves out would not be walked."""
    walked = operations(edge.app)
    for route in edge.app.routes:
        if isinstance(route, HTTPRoute) and route.path_format.startswith("/api/"):
            for name, definition in route.path_parameters.items():
                described = [one for one in walked if one.path == route.path_format]
                assert described
                for operation in described:
                    known = {parameter["name"] for parameter in operation.parameters}
                    assert name in known, f"{route.path_format}: {name}"
                    if definition.type is UUID:
                        assert ("path", name) in operation.id_parameters


def test_no_limit_of_a_parameter_is_only_written_down(edge: Edge) -> None:
    """Litestar enforces its own ``Parameter`` around a whole type: msgspec's ``Meta``, or a limit inside of ``… | None``, it does not."""
    ignored = [
        f"{route.path}: {name}"
        for route in edge.app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for name, field in handler.parsed_fn_signature.parameters.items()
        if name != "data"
        and (any(isinstance(one, Meta) for one in field.metadata) or "Annotated" in str(field.annotation))
        and not str(field.annotation).startswith("litestar")
    ]
    assert ignored == []


async def test_lists_and_search_hold_nothing_of_another_tenant(edge: Edge) -> None:
    a, b = edge.world.a, edge.world.b
    seen_by_owner = 0
    for operation in operations(edge.app):
        if operation.method != "GET" or "{" in operation.path:
            continue
        own = await edge.client.get(operation.path, headers=edge.headers(a))
        other = await edge.client.get(operation.path, headers=edge.headers(b))
        assert told(a.every_id, a.canary, other.content) == [], operation.path
        seen_by_owner += any(str(ident) in own.text for ident in a.every_id)
    # Threads, dead letters, contacts, leads, pipelines, documents, members, invitations, roles, service accounts, connections,
    # privacy requests, the audit log and its export.
    assert seen_by_owner >= 14
    for query in (a.canary, f"The {a.canary} costs 480 euros"):
        found = {}
        for full in (a, b):
            answer = await edge.client.post(
                "/api/v1/knowledge/search", json={"query": query, "limit": 50}, headers=edge.headers(full)
            )
            assert answer.status_code == 200
            found[full.canary] = answer
        assert [item["document_id"] for item in found[a.canary].json()] == [str(a.document_id)]
        assert told(a.every_id, a.canary, found[b.canary].content) == []


async def test_a_contact_with_a_known_address_is_made_anew(edge: Edge) -> None:
    """Find-or-create finds nothing of another tenant, and does not tell that the address is known there."""
    a, b = edge.world.a, edge.world.b
    before = snapshot(edge.world.admin, a.tenant.info.id)
    answer = await edge.client.post("/api/v1/crm/contacts", json={"email": a.email}, headers=edge.headers(b))
    made = answer.json()
    assert (answer.status_code, made["email"], made["name"]) == (201, a.email, None)
    assert UUID(made["id"]) not in a.every_id
    assert snapshot(edge.world.admin, a.tenant.info.id) == before


async def test_the_same_file_is_two_documents(edge: Edge) -> None:
    a, b = edge.world.a, edge.world.b
    theirs = edge.headers(a)
    before = snapshot(edge.world.admin, a.tenant.info.id)
    body = f"# The {a.canary}\n\nThe {a.canary} costs 480 euros and is ready on Monday.\n".encode()
    same = {}
    for full in (a, b):
        answer = await edge.client.post(
            "/api/v1/knowledge/documents",
            files={"file": (f"{a.canary}.md", body)},
            headers=theirs if full is a else edge.headers(full),
        )
        assert answer.status_code == 201
        same[full.canary] = UUID(answer.json()["id"])
    assert same[a.canary] == a.document_id
    assert same[b.canary] not in a.every_id
    after = snapshot(edge.world.admin, a.tenant.info.id)
    assert {table for table in after if after[table] != before[table]} <= {"audit_log", "audit_head"}
