"""The API's description, completed in one place: what the guard, the edge and the decoder do on every route is no handler's to say.

Litestar describes parameters and addresses. Bodies and answers are described here by msgspec, which also decodes and encodes them, so
each limit, pattern and forbidden field of a Struct stands in the description as it is enforced. Then come the answers that any route can
give beside its own (errors in their envelope), who may ask, and the Idempotency-Key header.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from litestar import Litestar
from litestar.datastructures import UploadFile
from litestar.handlers import HTTPRouteHandler
from litestar.response import Redirect, Stream
from litestar.response import Response as AnyResponse
from litestar.routes import HTTPRoute

from server.api.fields import END
from server.protection.idempotency import MAX_KEY, METHODS

Json = dict[str, Any]
_REF = "#/components/schemas/{name}"
ERROR = "Error"
_CODES = (
    "CONFLICT", "FORBIDDEN", "METHOD_NOT_ALLOWED", "NOT_FOUND", "PRECONDITION_FAILED", "RATE_LIMITED", "REQUEST_TIMEOUT",
    "TOO_LARGE", "UNAUTHENTICATED", "UPSTREAM_UNAVAILABLE", "VALIDATION_ERROR",
)  # fmt: skip

_RETRY_AFTER: Json = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
}
# Status → name of the component, what it means, its headers.
_ANSWERS: dict[str, tuple[str, str, Json]] = {
    "400": ("Malformed", "The request does not have the form that is described here.", {}),
    "401": ("Unauthenticated", "No valid token, key or session was shown.", {}),
    "403": ("Forbidden", "Known, and not allowed; `details` says what is missing.", {}),
    "404": ("NotFound", "There is no such record, or it is another business's.", {}),
    "408": ("RequestTimeout", "The body came too slowly.", {}),
    "409": ("Conflict", "The state of the record does not allow it.", _RETRY_AFTER),
    "412": ("PreconditionFailed", "The record was changed since it was read.", {}),
    "413": ("BodyTooLarge", "The body is larger than this address takes.", {}),
    "414": ("AddressTooLong", "The address is too long.", {}),
    "415": ("WrongMediaType", "This address reads bodies of other types.", {}),
    "422": ("Refused", "Well formed, and wrong: `message` says what to do.", {}),
    "429": ("RateLimited", "Too many requests.", _RETRY_AFTER),
    "431": ("HeadersTooLarge", "Too many headers, or too long ones.", {}),
    "503": ("Unavailable", "Something that we depend on does not answer.", _RETRY_AFTER),
}
_ALWAYS = ("400", "414", "422", "429", "431", "503")
_WITH_BODY = ("404", "408", "409", "413", "415")
_WITH_CHANGE = ("404", "409")
_KEY_PARAMETER: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same request with the same key is carried out once; its answer is kept for 24 hours.",
    "schema": {"type": "string", "pattern": rf"^[!-~]([ -~]{{0,{MAX_KEY - 2}}}[!-~])?$"},
}
_REPLAYED: Json = {
    "Idempotent-Replayed": {
        "description": "`true` where this is the answer to an earlier request with this key.",
        "required": False,
        "schema": {"type": "string", "const": "true"},
    }
}
_MATCH_PARAMETER: Json = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag that was read: something newer is not overwritten.",
    "schema": {"type": "string"},
}


class _ErrorBody(msgspec.Struct):
    code: str
    message: str
    details: Json
    request_id: str | None


def describe(app: Litestar) -> Json:
    """The API as OpenAPI 3.1, complete. Made at the first call, then kept with the application."""
    made: Json | None = app.state.get("openapi")
    if made is None:
        made = app.state["openapi"] = _made(app)
    return made


def _made(app: Litestar) -> Json:
    described: Json = app.openapi_schema.to_schema()
    found = [
        (handler, described["paths"][route.path_format][method.lower()])
        for route, handler in _handlers(app)
        for method in sorted(handler.http_methods)
        if method.lower() in described["paths"].get(route.path_format, {})
    ]
    components = described["components"]
    components["schemas"] = _describe_bodies(found)
    components["parameters"] = {"IdempotencyKey": _KEY_PARAMETER, "IfMatch": _MATCH_PARAMETER}
    components["responses"] = {
        name: {
            "description": meaning,
            "headers": headers,
            "content": {"application/json": {"schema": {"$ref": _REF.format(name=ERROR)}}},
        }
        for name, meaning, headers in _ANSWERS.values()
    }
    for handler, operation in found:
        _complete(handler, operation)
    described["paths"] = _for_openapi(described["paths"])
    return described


def _handlers(app: Litestar) -> Iterator[tuple[HTTPRoute, HTTPRouteHandler]]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                yield route, handler


def _describe_bodies(found: list[tuple[HTTPRouteHandler, Json]]) -> Json:
    """Put msgspec's words for each body and answer into its operation; returns the named parts."""
    places: list[tuple[Json, Any]] = []
    for handler, operation in found:
        data = handler.parsed_data_field
        if data is not None and "requestBody" in operation:
            places += [(media, data.annotation) for media in operation["requestBody"]["content"].values()]
        returned = _returned(handler)
        success = operation["responses"].get(str(handler.status_code), {})
        if "produces" in handler.opt:
            success["content"] = {media_type: {"schema": {}} for media_type in handler.opt["produces"]}
        elif returned is not None:
            places += [(media, returned) for media in success.get("content", {}).values()]
    types = [annotation for _, annotation in places]
    schemas, named = msgspec.json.schema_components(
        [*types, _ErrorBody], schema_hook=_unknown_type, ref_template=_REF
    )
    for (media, _), schema in zip(places, schemas, strict=False):
        media["schema"] = schema
    envelope = named.pop("_ErrorBody")
    envelope["properties"]["code"] = {"type": "string", "examples": list(_CODES)}
    named[ERROR] = {
        "type": "object",
        "title": ERROR,
        "description": "The one shape of all errors. `request_id` is also in our logs.",
        "properties": {"error": envelope},
        "required": ["error"],
    }
    return {name: _for_openapi(schema) for name, schema in named.items()}


def _returned(handler: HTTPRouteHandler) -> Any:
    """What msgspec encodes for an answer; None where it is no JSON, or nothing."""
    field = handler.parsed_fn_signature.return_type
    if field.is_subclass_of((Stream, Redirect)) or field.annotation in (None, type(None)):
        return None
    if not field.is_subclass_of(AnyResponse):
        return field.annotation
    inner = field.inner_types[0].annotation if field.inner_types else Any
    return None if inner is Any else inner


def _unknown_type(given: type) -> Json:
    """A file in a form (OpenAPI 3.1: a string with its media type)."""
    if given is UploadFile:
        return {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    raise NotImplementedError(given)  # how a msgspec schema hook says that a type is not its own


def _for_openapi(schema: Any) -> Any:
    """A schema in the words of its readers: docstrings without indentation, and patterns in JSON Schema's dialect (ECMA 262), in which
    ``$`` is the end and nothing else.
    """
    if isinstance(schema, list):
        return [_for_openapi(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _for_openapi(part) for name, part in schema.items()}
    if isinstance(made.get("description"), str):
        made["description"] = re.sub(r"\s*\n\s*", " ", made["description"]).strip()
    if isinstance(made.get("pattern"), str):
        made["pattern"] = made["pattern"].replace(END, "$")
    return made


def _complete(handler: HTTPRouteHandler, operation: Json) -> None:
    opt = handler.opt
    answers = set(_ALWAYS)
    if opt.get("public"):
        operation["security"] = []
    if not opt.get("public") or opt.get("limit") == "login":
        answers |= {"401", "403"}
    changes = bool(METHODS & handler.http_methods)
    if changes:
        answers.update(_WITH_CHANGE)
    if "requestBody" in operation:
        answers.update(_WITH_BODY)
    parameters = operation.setdefault("parameters", [])
    if any(one["in"] in ("path", "query") for one in parameters):
        answers.add("404")
    success: Json = operation["responses"][str(handler.status_code)]
    if changes and not opt.get("public") and opt.get("idempotent", True) is not False:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
        success.setdefault("headers", {}).update(_REPLAYED)
    if opt.get("versioned"):
        success.setdefault("headers", {})["ETag"] = {"schema": {"type": "string"}}
        if changes:
            parameters.append({"$ref": "#/components/parameters/IfMatch"})
            answers.add("412")
    if not parameters:
        del operation["parameters"]
    responses: Json = operation["responses"]
    for status in sorted(answers):
        # An answer of the handler's own (such as 503 of /health/ready, which is no error's envelope) is its own to describe.
        if status not in responses or "$ref" not in responses[status]:
            responses[status] = {"$ref": f"#/components/responses/{_ANSWERS[status][0]}"}
