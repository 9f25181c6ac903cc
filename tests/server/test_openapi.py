"""The description says what is enforced: forbidden fields, limits, errors, who may ask."""

from typing import Any

import pytest
from litestar import Litestar

from server.openapi import describe

Json = dict[str, Any]


@pytest.fixture
def described(app: Litestar) -> Json:
    return describe(app)


def operation(described: Json, method: str, path: str) -> Json:
    found: Json = described["paths"][path][method]
    return found


def parameters(described: Json, one: Json) -> set[str]:
    return {
        part["$ref"].rsplit("/", 1)[1] if "$ref" in part else part["name"]
        for part in one.get("parameters", ())
    }


def test_what_the_decoder_refuses_is_written_down(described: Json) -> None:
    schemas = described["components"]["schemas"]
    bodies = {
        media["schema"]["$ref"].rsplit("/", 1)[1]
        for path in described["paths"].values()
        for one in path.values()
        for name, media in one.get("requestBody", {"content": {}})["content"].items()
        if name == "application/json"
    }
    assert len(bodies) >= 30
    assert [name for name in bodies if schemas[name].get("additionalProperties") is not False] == []
    minutes = schemas["ImpersonationIn"]["properties"]["minutes"]
    assert minutes == {"type": "integer", "minimum": 5, "maximum": 120, "default": 30}
    assert schemas["Upload"]["properties"]["file"]["format"] == "binary"
    # Python's way to say "the end" is no word of JSON Schema's.
    assert schemas["Invite"]["properties"]["email"]["pattern"].endswith("+$")


def test_every_answer_that_the_edge_can_give_is_described(described: Json) -> None:
    for path, methods in described["paths"].items():
        for method, one in methods.items():
            statuses = set(one["responses"])
            where = f"{method} {path}"
            assert {"400", "414", "422", "429", "431", "503"} <= statuses, where
            assert one.get("security") == [] or {"401", "403"} <= statuses, where
            assert "requestBody" not in one or {"404", "408", "409", "413", "415"} <= statuses, where
            assert "{" not in path or "404" in statuses, where
    answers = described["components"]["responses"]
    assert "Retry-After" in answers["RateLimited"]["headers"]
    assert all(
        one["content"] == {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        for one in answers.values()
    )


def test_public_routes_ask_for_nothing(described: Json) -> None:
    assert operation(described, "post", "/api/v1/auth/login")["security"] == []
    assert "security" not in operation(described, "get", "/api/v1/auth/me")
    assert {"401", "429"} <= set(operation(described, "post", "/api/v1/auth/login")["responses"])


def test_where_a_request_can_be_repeated_the_key_is_a_parameter(described: Json) -> None:
    made = operation(described, "post", "/api/v1/crm/contacts")
    assert "IdempotencyKey" in parameters(described, made)
    assert made["responses"]["201"]["headers"]["Idempotent-Replayed"]["required"] is False
    for method, path in (("get", "/api/v1/crm/contacts"), ("post", "/api/v1/auth/login")):
        assert "IdempotencyKey" not in parameters(described, operation(described, method, path))


def test_a_version_that_was_read_can_be_named(described: Json) -> None:
    change = operation(described, "patch", "/api/v1/tenants/current")
    assert "IfMatch" in parameters(described, change)
    assert "412" in change["responses"]
    assert "ETag" in operation(described, "get", "/api/v1/tenants/current")["responses"]["200"]["headers"]


def test_answers_that_are_no_json_say_what_they_are(described: Json) -> None:
    export = operation(described, "get", "/api/v1/audit/export")["responses"]["200"]["content"]
    assert list(export) == ["application/x-ndjson", "text/csv"]
