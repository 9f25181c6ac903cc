"""Limits of requests' bodies and of handlers' time."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Request, get, post
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.params import Body, JSONBody
from litestar.response import Stream

from server.protection.errors import MalformedRequest
from server.protection.json_shape import check_json_shape
from tests.server.protection.edge_app import error_of, protected

JSON = {"content-type": "application/json"}


@post("/any", opt={"public": True})
async def anything(data: JSONBody[Any]) -> dict[str, int]:
    return {"length": len(json.dumps(data))}


class Named(msgspec.Struct):
    name: str


@post("/named", opt={"public": True})
async def named(data: JSONBody[Named]) -> str:
    return data.name


@post("/small", opt={"public": True, "max_body": 10})
async def small(request: Request[Any, Any, Any]) -> str:
    return str(len(await request.body()))


@post("/form", opt={"public": True, "max_body": 5000})
async def form(data: Annotated[UploadFile, Body(media_type=RequestEncodingType.MULTI_PART)]) -> str:
    return data.filename


@post("/text", opt={"public": True, "content_types": ("text/plain",)})
async def text(request: Request[Any, Any, Any]) -> str:
    return (await request.body()).decode()


@get("/slow", opt={"public": True, "timeout": 0.05})
async def slow() -> str:
    await asyncio.sleep(30)
    return "late"


@get("/drip", opt={"public": True, "timeout": 0.05})
async def drip() -> Stream:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x"
            await asyncio.sleep(0.04)

    return Stream(parts())


@get("/raises", opt={"public": True})
async def raises() -> str:
    raise TimeoutError("somebody else's")


ROUTES = (anything, named, small, form, text, slow, drip, raises)


async def chunks(*parts: bytes, pause: float = 0) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(pause)


async def test_a_body_of_the_size_that_is_taken_and_one_byte_more() -> None:
    async with protected(*ROUTES) as client:
        assert (await client.post("/small", content=b"x" * 10)).text == "10"
        assert error_of(await client.post("/small", content=b"x" * 11)) == (413, "TOO_LARGE")
        # The same without a length said before: counted while it comes.
        assert (await client.post("/small", content=chunks(b"x" * 5, b"x" * 5))).text == "10"
        assert error_of(await client.post("/small", content=chunks(b"x" * 5, b"x" * 6))) == (413, "TOO_LARGE")
        big = b'"' + b"x" * 999_998 + b'"'
        assert (await client.post("/any", content=big, headers=JSON)).status_code == 201
        assert error_of(await client.post("/any", content=big + b" ", headers=JSON)) == (413, "TOO_LARGE")


async def test_a_length_that_is_no_number() -> None:
    async with protected(*ROUTES) as client:
        request = client.build_request("POST", "/small", content=b"x")
        request.headers["content-length"] = "-1"
        assert error_of(await client.send(request)) == (400, "VALIDATION_ERROR")


async def test_a_body_that_does_not_come() -> None:
    async with protected(*ROUTES, body_seconds=0.1) as client:
        slow_body = chunks(b"x", b"x", pause=30)
        assert error_of(await client.post("/small", content=slow_body)) == (408, "REQUEST_TIMEOUT")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/named", JSON, 201),
        ("/named", {"content-type": "application/json; charset=utf-8"}, 201),
        ("/named", {"content-type": "Application/JSON; charset=UTF-8"}, 201),
        ("/named", {"content-type": "application/vnd.api+json"}, 201),
        ("/named", {"content-type": "application/json; charset=utf-16"}, 415),
        ("/named", {"content-type": "text/plain"}, 415),
        ("/named", {"content-type": "application/x-www-form-urlencoded"}, 415),
        ("/named", {"content-type": "multipart/form-data; boundary=x"}, 415),
        ("/named", {}, 415),
        ("/text", {"content-type": "text/plain; charset=utf-8"}, 201),
        ("/text", JSON, 415),
        ("/form", JSON, 415),
    ],
)
async def test_types_of_bodies(path: str, headers: dict[str, str], status: int) -> None:
    async with protected(*ROUTES) as client:
        answer = await client.post(path, content=b'{"name":"x"}', headers=headers)
    assert answer.status_code == status
    if status == 415:
        assert error_of(answer) == (415, "VALIDATION_ERROR")


async def test_a_form_passes() -> None:
    async with protected(*ROUTES) as client:
        assert (await client.post("/form", files={"data": ("a.txt", b"x")})).text == "a.txt"
        large = await client.post("/form", files={"data": ("a.txt", b"x" * 5001)})
        assert error_of(large) == (413, "TOO_LARGE")


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 33 + b"]" * 33,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b"[" + b"1," * 10_000 + b"1]",
        b"[" + b"[]," * 10_000 + b"[]]",
        b"[" + b'{"a":1},' * 5_000 + b"1]",
    ],
)
@pytest.mark.parametrize("path", ["/any", "/named"])
async def test_json_that_would_strain_the_decoder(path: str, content: bytes) -> None:
    async with protected(*ROUTES) as client:
        for sent in (content, chunks(content[:7], content[7:])):
            assert error_of(await client.post(path, content=sent, headers=JSON)) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 32 + b"]" * 32,
        b"[" + b"1," * 9_999 + b"1]",
        json.dumps({"text": "[" * 500 + '"\\' + "," * 20_000}).encode(),
        b'["\\\\", "\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["]',
        b'"' + b"\\\\" * 100 + b'"',
    ],
)
async def test_json_within_the_limits(content: bytes) -> None:
    async with protected(*ROUTES) as client:
        assert (await client.post("/any", content=content, headers=JSON)).status_code == 201


@pytest.mark.parametrize("content", [b"{", b'{"name": 1', b"\xff", b'"', b"nul"])
async def test_json_that_is_none(content: bytes) -> None:
    async with protected(*ROUTES) as client:
        assert error_of(await client.post("/named", content=content, headers=JSON))[0] == 400


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=60,
)


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@settings(max_examples=200, deadline=None)
@given(JSON_VALUES, st.integers(0, 40), st.booleans())
def test_the_depth_is_the_decoded_values_depth(value: Any, more: int, plain: bool) -> None:
    for _ in range(more):
        value = [value]
    # The padding makes the quick answer impossible: brackets inside of strings.
    content = json.dumps([value, "[" * 40], ensure_ascii=plain).encode()
    if depth_of(value) + 1 > 32:
        with pytest.raises(MalformedRequest):
            check_json_shape(content)
    else:
        check_json_shape(content)


def test_a_text_of_quotes_and_backslashes_costs_linear_time() -> None:
    """With a pattern that tries again at each quote this takes minutes; pytest's own limit would end it."""
    for content in (b'"' + b'\\"' * 450_000, b'"' * 900_001, b"\\" * 900_000, b'"' + b"\\" * 900_000):
        check_json_shape(b"[]" * 40 + content)


async def test_a_handler_that_takes_too_long() -> None:
    async with protected(*ROUTES) as client:
        assert error_of(await client.get("/slow")) == (503, "UPSTREAM_UNAVAILABLE")
        assert (await client.get("/drip")).text == "xxxx"  # the limit is for the answer's begin
        assert error_of(await client.get("/raises")) == (500, "INTERNAL_ERROR")
