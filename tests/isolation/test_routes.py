"""Every route of the application: closed by default, and blind to another tenant's ids.

The routes are taken from the application and the parameters from its OpenAPI description, so a new route is walked
without a word here.
"""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from litestar import Litestar, get
from litestar.routes import HTTPRoute

from server.app import create_app
from tests.isolation.conftest import TwoTenants
from tests.isolation.full import FullTenant, snapshot
from tests.support.edge import opened, signed_in
from tests.support.world import ALL_SCOPES

Answer = tuple[int, Any, dict[str, str]]
# Litestar's own description of the API, which is served from /docs instead; nobody may ask for these.
CLOSED = {"/schema", "/schema/{path}", "/schema/openapi.json"}


@dataclass(frozen=True)
class Edge:
    """The application over the world's parts."""

    world: TwoTenants
    app: Litestar
    client: httpx.AsyncClient

    def headers(self, full: FullTenant, scopes: tuple[str, ...] = ALL_SCOPES) -> dict[str, str]:
        return signed_in(self.app, full.tenant, scopes)


@dataclass(frozen=True)
class Operation:
    """A method of a route; ``spec`` is its OpenAPI operation, empty where it is not described."""

    method: str
    path: str
    opt: dict[str, Any]
    spec: dict[str, Any]

    @property
    def id_parameters(self) -> list[tuple[str, str]]:
        """Where an id can be put: (in, name)."""
        found = [
            (parameter["in"], parameter["name"])
            for parameter in self.spec.get("parameters", ())
            if _takes_uuid(parameter["schema"])
        ]
        return found + [("body", name) for name, schema in self.body_fields.items() if _takes_uuid(schema)]

    @property
    def body_fields(self) -> dict[str, Any]:
        content = self.spec.get("requestBody", {}).get("content", {})
        schema: dict[str, Any] = content.get("application/json", {}).get("schema", {})
        return dict(schema.get("properties", {}))

    def variants(self) -> Iterator[dict[str, Any]]:
        """Values for the path's other parameters: each value of an enumeration once."""
        others = [
            (parameter["name"], parameter["schema"].get("enum") or [_value(parameter["schema"])])
            for parameter in self.spec.get("parameters", ())
            if parameter["in"] == "path" and not _takes_uuid(parameter["schema"])
        ]
        if not others:
            yield {}
        for name, values in others:
            yield from ({name: value} for value in values)


@pytest.fixture(scope="module")
async def edge(world: TwoTenants) -> AsyncIterator[Edge]:
    app = create_app(world.parts)
    async with opened(app) as client:
        yield Edge(world, app, client)


def operations(app: Litestar) -> list[Operation]:
    """All methods of all HTTP routes, but for OPTIONS."""
    described = _resolved(app.openapi_schema.to_schema())
    found = []
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                for method in sorted(handler.http_methods - {"OPTIONS"}):
                    spec = described["paths"].get(route.path_format, {}).get(method.lower(), {})
                    found.append(Operation(method, route.path_format, dict(handler.opt), spec))
    return sorted(found, key=lambda one: (one.path, one.method))


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The description with each ``$ref`` replaced by what it points at."""
    components = schema["components"]["schemas"]

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return walk(components[part["$ref"].rsplit("/", 1)[1]])
            return {key: walk(value) for key, value in part.items()}
        return [walk(item) for item in part] if isinstance(part, list) else part

    resolved: dict[str, Any] = walk({"paths": schema["paths"]})
    return resolved


def _takes_uuid(schema: dict[str, Any]) -> bool:
    return schema.get("format") == "uuid" or any(
        _takes_uuid(option) for option in (*schema.get("oneOf", ()), *schema.get("anyOf", ()))
    )


def _value(schema: dict[str, Any]) -> Any:
    """A valid value for a body's field that is not the one under test."""
    if "enum" in schema:
        return schema["enum"][0]
    return {"string": "walked", "integer": 1, "number": 1, "boolean": True, "array": []}[schema["type"]]


async def ask(
    edge: Edge, operation: Operation, looking: FullTenant, ident: UUID, variant: dict[str, Any]
) -> Answer:
    """Call an operation with an id in each place that takes one: (status, body, headers) but for the request id."""
    path, query, body = operation.path, {}, {}
    places = operation.id_parameters
    for where, name in places:
        if where == "query":
            query[name] = str(ident)
    values = {name: str(ident) for where, name in places if where == "path"} | variant
    for name, schema in operation.body_fields.items():
        if ("body", name) in places:
            body[name] = str(ident)
        elif "type" in schema or "enum" in schema:
            body[name] = _value(schema)
    answer = await edge.client.request(
        operation.method,
        path.format(**values),
        params=query,
        json=body if operation.method in ("POST", "PUT", "PATCH") else None,
        headers=edge.headers(looking),
    )
    content: Any = json.loads(answer.content) if answer.content else {}
    if answer.status_code >= 400:
        del content["error"]["request_id"]
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, content, headers


def test_every_route_says_who_may_use_it(edge: Edge) -> None:
    silent = {
        one.path for one in operations(edge.app) if not one.opt.get("public") and not one.opt.get("scopes")
    }
    assert silent == CLOSED
    with_scopes = [one for one in operations(edge.app) if one.opt.get("scopes")]
    assert {scope for one in with_scopes for scope in one.opt["scopes"]} <= set(ALL_SCOPES)
    assert all(one.spec for one in with_scopes), "a route with scopes is missing from the API's description"


def test_the_public_routes_are_these(edge: Edge) -> None:
    """Read this list when it changes: nobody has to sign in for what stands here."""
    assert {one.path for one in operations(edge.app) if one.opt.get("public")} == {
        "/",
        "/api/v1/auth/login",
        "/demo",
        "/docs",
        "/docs/openapi.json",
        "/docs/start.js",
        "/docs/{name}",
        "/health/live",
        "/health/ready",
        "/widget/v1/{name}",
    }


async def test_no_route_opens_without_a_token_or_without_its_scopes(edge: Edge) -> None:
    before = snapshot(edge.world.admin, edge.world.a.tenant.info.id)
    guarded = [one for one in operations(edge.app) if not one.opt.get("public")]
    assert len(guarded) >= 20
    for operation in guarded:
        values = {name: str(uuid4()) for where, name in operation.id_parameters if where == "path"}
        path = operation.path.format(**{"path": "x", **values, **next(operation.variants())})
        bare = await edge.client.request(operation.method, path)
        weak = await edge.client.request(
            operation.method, path, headers=edge.headers(edge.world.a, ("something:else",))
        )
        expected = (403, 403) if operation.path in CLOSED else (401, 403)
        assert (bare.status_code, weak.status_code) == expected, f"{operation.method} {path}"
        if operation.path not in CLOSED:
            assert weak.json()["error"]["details"] == {"missing_scopes": sorted(operation.opt["scopes"])}
    assert snapshot(edge.world.admin, edge.world.a.tenant.info.id) == before


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


async def test_another_tenants_id_is_an_id_that_does_not_exist(edge: Edge) -> None:
    a, b = edge.world.a, edge.world.b
    before = snapshot(edge.world.admin, a.tenant.info.id)
    walked = 0
    for operation in operations(edge.app):
        if not operation.id_parameters:
            continue
        for variant in operation.variants():
            unknown = await ask(edge, operation, b, uuid4(), variant)
            assert unknown[0] == 404, f"{operation.method} {operation.path} {variant}: {unknown}"
            assert unknown[1]["error"]["code"] == "NOT_FOUND"
            for ident in a.every_id:
                foreign = await ask(edge, operation, b, ident, variant)
                assert foreign == unknown, f"{operation.method} {operation.path} {variant} {ident}"
                walked += 1
    assert walked > 500
    assert snapshot(edge.world.admin, a.tenant.info.id) == before


async def test_the_walk_knows_the_right_ids(edge: Edge) -> None:
    """The walk above proves nothing where its ids fit nobody: to their owner each reading route opens with one."""
    a = edge.world.a
    for operation in operations(edge.app):
        if operation.method == "GET" and operation.id_parameters:
            variant = next(operation.variants())
            statuses = {(await ask(edge, operation, a, ident, variant))[0] for ident in a.every_id}
            assert statuses == {200, 404}, operation.path


async def test_every_place_for_an_id_is_known(edge: Edge) -> None:
    """Path parameters that the description leaves out would not be walked."""
    for route in edge.app.routes:
        if isinstance(route, HTTPRoute) and route.path_format.startswith("/api/"):
            for name, definition in route.path_parameters.items():
                described = [one for one in operations(edge.app) if one.path == route.path_format]
                assert described
                for operation in described:
                    known = {parameter["name"] for parameter in operation.spec.get("parameters", ())}
                    assert name in known, f"{route.path_format}: {name}"
                    if definition.type is UUID:
                        assert ("path", name) in operation.id_parameters


async def test_lists_and_search_hold_nothing_of_another_tenant(edge: Edge) -> None:
    a, b = edge.world.a, edge.world.b
    seen_by_owner = 0
    for operation in operations(edge.app):
        if operation.method != "GET" or operation.id_parameters or "{" in operation.path:
            continue
        own = await edge.client.get(operation.path, headers=edge.headers(a))
        other = await edge.client.get(operation.path, headers=edge.headers(b))
        _holds_nothing_of(a, other.text, operation.path)
        seen_by_owner += any(str(ident) in own.text for ident in a.every_id)
    assert seen_by_owner >= 6  # threads, dead letters, contacts, leads, pipelines, documents
    for query in (a.canary, f"The {a.canary} costs 480 euros"):
        found = {}
        for full in (a, b):
            answer = await edge.client.post(
                "/api/v1/knowledge/search", json={"query": query, "limit": 50}, headers=edge.headers(full)
            )
            assert answer.status_code == 200
            found[full.canary] = answer
        assert [item["document_id"] for item in found[a.canary].json()] == [str(a.document_id)]
        _holds_nothing_of(a, found[b.canary].text, "search")


def _holds_nothing_of(full: FullTenant, body: str, where: str) -> None:
    assert full.canary not in body, where
    assert [str(ident) for ident in full.every_id if str(ident) in body] == [], where


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
    before = snapshot(edge.world.admin, a.tenant.info.id)
    body = f"# The {a.canary}\n\nThe {a.canary} costs 480 euros and is ready on Monday.\n".encode()
    same = {}
    for full in (a, b):
        answer = await edge.client.post(
            "/api/v1/knowledge/documents",
            files={"file": (f"{a.canary}.md", body)},
            headers=edge.headers(full),
        )
        assert answer.status_code == 201
        same[full.canary] = UUID(answer.json()["id"])
    assert same[a.canary] == a.document_id
    assert same[b.canary] not in a.every_id
    assert snapshot(edge.world.admin, a.tenant.info.id) == before
