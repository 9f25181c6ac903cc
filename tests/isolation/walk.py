"""Every operation of the API, with every place where an id can be put, taken from the application and its description: a new route is
walked without a word here.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
from litestar import Litestar
from litestar.routes import HTTPRoute

from server.openapi import describe

# Litestar's own description of the API, which is served from /docs instead; nobody may ask for these.
CLOSED = {"/schema", "/schema/{path}", "/schema/openapi.json"}
# Ids by which a list is continued: they name a place in an order, not a record, so any id is an answer's beginning.
CURSORS = {"after", "before"}
# Told anew with each answer, whoever asks for what.
_VARYING = re.compile(r"x-request-id|date|content-length|ratelimit.*|retry-after")
_REQUEST_ID = re.compile(rb'"request_id":"req_[0-9a-f]{32}"')
# Values that a pattern or a handler asks for, by the name of the field or parameter.
_EXAMPLES: dict[str, Any] = {
    "email": "walker@walked.example",
    "reason": "the walk through all routes",
    "role": "staff",
    "permissions": ["inbox:read"],
    "scopes": ["crm:read"],
    "key": "walked",
    "kind": "export",
    "basis": "consent",
    "state": "granted",
    "minutes": 30,
    "code": "000000",
    "time_zone": "UTC",
    "language": "en",
    "issuer": "https://idp.walked.example",
    "tenant": "walked",
    "color": "#000000",
    "number": 1,
    "allowed_networks": [],
    "recovery_code": None,
    "passkey": None,
    "password": None,
}
# Of members: 'state' is another word there.
_OF_OPERATION: dict[str, dict[str, Any]] = {
    "/api/v1/members/{member_id}": {"state": "active"},
    "/api/v1/inbox/dead-letters/{kind}/{letter_id}/replay": {"kind": "inbox"},
}


@dataclass(frozen=True)
class Answer:
    """What may not differ between another tenant's id and one that does not exist: status, headers and body, but for what is drawn
    anew each time.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes = field(compare=False)


@dataclass(frozen=True)
class Operation:
    """A method of a route; ``spec`` is its OpenAPI operation, empty where it is not described."""

    method: str
    path: str
    opt: dict[str, Any]
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[dict[str, Any]]:
        return [one for one in self.spec.get("parameters", ()) if one["in"] in ("path", "query")]

    @property
    def id_parameters(self) -> list[tuple[str, str]]:
        """Where an id can be put: (in, name)."""
        found = [(one["in"], one["name"]) for one in self.parameters if takes_uuid(one["schema"])]
        return found + [("body", name) for name, schema in self.body_fields.items() if takes_uuid(schema)]

    @property
    def body_fields(self) -> dict[str, Any]:
        content = self.spec.get("requestBody", {}).get("content", {})
        schema: dict[str, Any] = content.get("application/json", {}).get("schema", {})
        return dict(schema.get("properties", {}))

    @property
    def required_fields(self) -> list[str]:
        content = self.spec.get("requestBody", {}).get("content", {})
        return list(content.get("application/json", {}).get("schema", {}).get("required", ()))

    def variants(self) -> Iterator[dict[str, Any]]:
        """Values for the path's other parameters: each value of an enumeration once."""
        others = [
            (one["name"], one["schema"].get("enum") or [_value(one["name"], one["schema"])])
            for one in self.parameters
            if one["in"] == "path" and not takes_uuid(one["schema"])
        ]
        if not others:
            yield {}
        for name, values in others:
            yield from ({name: value} for value in values)

    def request(
        self, ids: dict[tuple[str, str], UUID], variant: dict[str, Any]
    ) -> tuple[str, dict[str, str], Any]:
        """Address, query and body with these ids in these places; all that is not wanted is left out."""
        values = {name: str(ident) for (where, name), ident in ids.items() if where == "path"} | variant
        query = {name: str(ident) for (where, name), ident in ids.items() if where == "query"}
        for one in self.parameters:
            if one["in"] == "query" and one.get("required") and one["name"] not in query:
                query[one["name"]] = str(_value(one["name"], one["schema"]))
        own = _OF_OPERATION.get(self.path, {})
        body: dict[str, Any] = {}
        for name, schema in self.body_fields.items():
            if ("body", name) in ids:
                ident = str(ids["body", name])
                body[name] = [ident] if schema.get("type") == "array" else ident
            elif name in self.required_fields:
                body[name] = own.get(name, _value(name, schema))
        wanted = "requestBody" in self.spec
        return self.path.format(**{"path": "x", **values}), query, body if wanted else None


def operations(app: Litestar) -> list[Operation]:
    """All methods of all HTTP routes, but for OPTIONS."""
    described = _resolved(describe(app))
    found = []
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                for method in sorted(handler.http_methods - {"OPTIONS"}):
                    spec = described["paths"].get(route.path_format, {}).get(method.lower(), {})
                    found.append(Operation(method, route.path_format, dict(handler.opt), spec))
    return sorted(found, key=lambda one: (one.path, one.method))


def takes_uuid(schema: dict[str, Any]) -> bool:
    """Whether an id is a value, or a list of ids is."""
    options = [*schema.get("oneOf", ()), *schema.get("anyOf", ())]
    if isinstance(schema.get("items"), dict):
        options.append(schema["items"])
    return schema.get("format") == "uuid" or any(takes_uuid(option) for option in options)


async def ask(
    client: httpx.AsyncClient,
    operation: Operation,
    headers: dict[str, str],
    ids: dict[tuple[str, str], UUID],
    variant: dict[str, Any],
) -> Answer:
    """Call an operation with ids in some places."""
    path, query, body = operation.request(ids, variant)
    form = "multipart/form-data" in operation.spec.get("requestBody", {}).get("content", {})
    sent: dict[str, Any] = {"files": {"file": ("walked.txt", b"walked")}} if form else {"json": body}
    answer = await client.request(operation.method, path, params=query, headers=headers, **sent)
    kept = sorted(
        (name.lower(), value)
        for name, value in answer.headers.items()
        if not _VARYING.fullmatch(name.lower())
    )
    body_ = _REQUEST_ID.sub(b'"request_id":""', answer.content)
    return Answer(answer.status_code, tuple(kept), body_, answer.content)


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """The description with each ``$ref`` replaced by what it points at."""

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                found: Any = schema
                for name in part["$ref"].removeprefix("#/").split("/"):
                    found = found[name]
                return walk(found)
            return {key: walk(value) for key, value in part.items()}
        return [walk(item) for item in part] if isinstance(part, list) else part

    resolved: dict[str, Any] = walk({"paths": schema["paths"]})
    return resolved


def _value(name: str, schema: dict[str, Any]) -> Any:
    """A valid value for what is not under test."""
    if "enum" in schema:
        return schema["enum"][0]
    if name in _EXAMPLES:
        return _EXAMPLES[name]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return _value(name, options[0])
    kind = schema.get("type")
    return {"string": "walked", "integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}[
        kind if isinstance(kind, str) else "string"
    ]


def told(ids: set[UUID], canary: str, body: bytes) -> list[str]:
    """What of a tenant stands in an answer: its ids and the word that only it has."""
    text = body.decode("utf-8", "replace")
    return [str(one) for one in ids if str(one) in text] + ([canary] if canary in text else [])


def without_request_id(body: bytes) -> Any:
    """An error's envelope, as Python reads it."""
    content: Any = json.loads(body) if body else {}
    if isinstance(content, dict) and "error" in content:
        content["error"].pop("request_id", None)
    return content
