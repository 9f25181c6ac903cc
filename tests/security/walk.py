"""Every route of the application with values for its parameters, from the description that it gives of itself."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
from litestar import Litestar
from litestar.routes import HTTPRoute

from server.openapi import describe
from storage.permissions import PERMISSIONS, PLATFORM_PERMISSIONS
from tests.server.auth.people import Device
from tests.support.edge import signed_in
from tests.support.world import TestTenant

EVERYTHING = (*PERMISSIONS, *PLATFORM_PERMISSIONS)


@dataclass(frozen=True)
class Operation:
    """A method of a route.

    Attributes:
        opt: what the route says about who may use it.
        spec: its OpenAPI operation, references resolved; empty where it is not described.
    """

    method: str
    path: str
    opt: dict[str, Any]
    spec: dict[str, Any] = field(repr=False)
    handler: Any = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[dict[str, Any]]:
        return list(self.spec.get("parameters", ()))

    @property
    def body(self) -> dict[str, Any]:
        """Properties of its JSON body."""
        content = self.spec.get("requestBody", {}).get("content", {})
        schema: dict[str, Any] = content.get("application/json", {}).get("schema", {})
        return dict(schema.get("properties", {}))

    def address(self, **values: str) -> str:
        """The path with an unknown id, ``x`` or 1 in its places."""
        path = self.path
        for name in self.handler_parameters:
            kind: dict[str, Any] = next((one["schema"] for one in self.parameters if one["name"] == name), {})
            path = path.replace(f"{{{name}}}", values.get(name) or str(valid(kind)))
        return path

    @property
    def handler_parameters(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


def operations(app: Litestar) -> list[Operation]:
    """All methods of all HTTP routes, but for OPTIONS."""
    described = resolved(describe(app))
    found = []
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                for method in sorted(handler.http_methods - {"OPTIONS"}):
                    spec = described["paths"].get(route.path_format, {}).get(method.lower(), {})
                    found.append(Operation(method, route.path_format, dict(handler.opt), spec, handler))
    return sorted(found, key=lambda one: (one.path, one.method))


def resolved(document: dict[str, Any]) -> dict[str, Any]:
    """The description with each ``$ref`` replaced by what it points at."""

    def step(place: str) -> Any:
        found: Any = document
        for name in place.removeprefix("#/").split("/"):
            found = found[name]
        return found

    def follow(part: Any, within: tuple[str, ...]) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                place = part["$ref"]
                return {} if place in within else follow(step(place), (*within, place))
            return {key: follow(value, within) for key, value in part.items()}
        return [follow(item, within) for item in part] if isinstance(part, list) else part

    made: dict[str, Any] = json.loads(json.dumps(follow({"paths": document["paths"]}, ())))
    return made


def options(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The schema, or what it offers to choose from."""
    offered = [*schema.get("oneOf", ()), *schema.get("anyOf", ())]
    return [inner for one in offered for inner in options(one)] if offered else [schema]


def valid(schema: dict[str, Any]) -> Any:
    """Some value of the schema, as good as can be had without knowing what it means."""
    one = next((one for one in options(schema) if one.get("type") != "null"), {})
    if "enum" in one:
        return one["enum"][0]
    if "const" in one:
        return one["const"]
    if one.get("type") == "object":
        wanted = set(one.get("required", ()))
        return {name: valid(inner) for name, inner in one.get("properties", {}).items() if name in wanted}
    by_format = {
        "uuid": str(uuid4()),
        "email": "walk@people.example",
        "date-time": "2026-01-01T00:00:00Z",
        "date": "2026-01-01",
    }
    if one.get("format") in by_format:
        return by_format[one["format"]]
    number = max(1, one.get("minimum", 1))
    text = "x" * max(1, min(one.get("minLength", 1), 64))
    return {"string": text, "integer": number, "number": number, "boolean": True, "array": []}.get(
        one.get("type", ""), "x"
    )


def is_text(schema: dict[str, Any]) -> bool:
    return any(
        one.get("type") == "string" and one.get("format") != "uuid" and "enum" not in one
        for one in options(schema)
    )


def fillings(operation: Operation, value: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """For each field that takes a text: the field's name, the query and the body with the value in it and all else valid."""
    required = (
        operation.spec.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    )
    wanted = set(required.get("required", ()))
    body = {name: valid(schema) for name, schema in operation.body.items() if name in wanted}
    for name, schema in operation.body.items():
        if is_text(schema):
            yield name, {}, {**body, name: value}
        for inner in options(schema):
            if inner.get("type") == "array" and is_text(inner.get("items", {})):
                yield name, {}, {**body, name: [value]}
    for one in operation.parameters:
        if one["in"] == "query" and is_text(one["schema"]):
            yield one["name"], {one["name"]: value}, body


async def ask(
    app: Litestar,
    tenant: TestTenant,
    operation: Operation,
    *,
    body: Any = None,
    query: Any = None,
    **values: str,
) -> httpx.Response:
    """The operation, asked for by somebody new who may do everything: what the one before has ended does not matter."""
    device = Device(app)
    device.token = signed_in(app, tenant, EVERYTHING)["authorization"].removeprefix("Bearer ")
    address = operation.address(**values)
    if query:
        address += f"?{httpx.QueryParams(query)}"
    sent = body if operation.method in {"POST", "PUT", "PATCH"} else None
    return await device.ask(operation.method, address, sent)
