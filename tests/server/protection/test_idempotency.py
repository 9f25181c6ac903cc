"""The same request twice is carried out once."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from litestar import Response, delete, get, post
from litestar.datastructures import Cookie
from litestar.params import FromPath, JSONBody

from server.protection.idempotency import MAX_STORED, Begun, Busy, Different, Lost, Replay, fingerprint
from storage.errors import Conflict
from storage.tenancy import TenantContext
from tests.server.protection.edge_app import ACME, GLOBEX, caller, error_of, protected


class MemoryStore:
    """The contract, in memory. ``committed`` is what a request's own transaction would mark."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, str, str], dict[str, Any]] = {}
        self.fails = False

    async def begin(
        self, context: TenantContext, key: str, fingerprint: str
    ) -> Begun | Replay | Busy | Different | Lost:
        at = (context.tenant_id, context.actor, key)
        row = self.rows.get(at)
        if row is None:
            self.rows[at] = {"fingerprint": fingerprint, "state": "in_progress"}
            return Begun()
        if row["fingerprint"] != fingerprint:
            return Different()
        if row["state"] == "done":
            return Replay(*row["answer"])
        return Lost() if row["state"] == "committed" else Busy()

    async def finish(
        self, context: TenantContext, key: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        if self.fails:
            raise ConnectionError("the database is away")
        row = self.rows[context.tenant_id, context.actor, key]
        row.update(state="done", answer=(status, dict(headers), body))

    async def abandon(self, context: TenantContext, key: str) -> None:
        at = (context.tenant_id, context.actor, key)
        if self.rows[at]["state"] == "in_progress":
            del self.rows[at]

    def commit(self) -> None:
        for row in self.rows.values():
            row["state"] = "committed"


class Acts:
    """Handlers that count what they do."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.going_on = asyncio.Event()
        self.may_end = asyncio.Event()
        self.status = 201
        self.error: Exception | None = None

    def routes(self) -> tuple[Any, ...]:
        @post("/acts")
        async def act(data: JSONBody[dict[str, Any]]) -> Response[dict[str, Any]]:
            self.done.append(data["name"])
            if self.error:
                raise self.error
            return Response(
                {"number": len(self.done)},
                status_code=self.status,
                headers={"location": f"/acts/{len(self.done)}", "x-other": "1"},
                cookies=[Cookie("secret", "value")],
            )

        @post("/slow", opt={"timeout": 0.2})
        async def slow() -> str:
            self.done.append("slow")
            self.going_on.set()
            await self.may_end.wait()
            return "done"

        @post("/exempt", opt={"idempotent": False})
        async def exempt() -> str:
            self.done.append("exempt")
            return "again"

        @post("/open", opt={"public": True})
        async def public() -> str:
            self.done.append("open")
            return "again"

        @delete("/acts/{number:int}")
        async def remove(number: FromPath[int]) -> None:
            self.done.append(f"removed {number}")

        @get("/acts")
        async def read() -> int:
            return len(self.done)

        @post("/large")
        async def large() -> str:
            self.done.append("large")
            return "x" * (MAX_STORED + 1)

        return act, slow, exempt, public, remove, read, large


def keyed(key: str = "k1", **who: Any) -> dict[str, str]:
    return caller(**who) | {"idempotency-key": key}


async def test_a_repetition_gets_the_first_answer_and_nothing_happens() -> None:
    acts, store = Acts(), MemoryStore()
    async with protected(*acts.routes(), answers=store) as client:
        first = await client.post("/acts", json={"name": "a"}, headers=keyed())
        again = await client.post("/acts", json={"name": "a"}, headers=keyed())
        other = await client.post("/acts", json={"name": "a"}, headers=keyed("k2"))
        unkeyed = await client.post("/acts", json={"name": "a"}, headers=caller())
    assert (first.status_code, first.json(), first.headers["location"]) == (201, {"number": 1}, "/acts/1")
    assert (again.status_code, again.json(), again.headers["location"]) == (201, {"number": 1}, "/acts/1")
    assert again.headers["content-type"] == first.headers["content-type"]
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (False, "true")
    # What was the first caller's browser's, is not the second one's.
    assert ("set-cookie" in first.headers, "set-cookie" in again.headers) == (True, False)
    assert (other.json(), unkeyed.json()) == ({"number": 2}, {"number": 3})


async def test_an_answer_without_a_body_is_repeated_too() -> None:
    acts = Acts()
    async with protected(*acts.routes(), answers=MemoryStore()) as client:
        found = [await client.delete("/acts/7", headers=keyed()) for _ in range(2)]
    assert [(answer.status_code, answer.content) for answer in found] == [(204, b""), (204, b"")]
    assert found[1].headers["idempotent-replayed"] == "true"
    assert acts.done == ["removed 7"]


async def test_a_key_belongs_to_one_request_of_one_caller() -> None:
    acts = Acts()
    async with protected(*acts.routes(), answers=MemoryStore()) as client:
        await client.post("/acts", json={"name": "a"}, headers=keyed())
        for path, body in (("/acts", {"name": "b"}), ("/acts?x=1", {"name": "a"}), ("/slow", {"name": "a"})):
            refused = await client.post(path, json=body, headers=keyed())
            assert error_of(refused) == (422, "VALIDATION_ERROR")
        for who in ({"user": "bob"}, {"tenant": GLOBEX}):
            assert (await client.post("/acts", json={"name": "a"}, headers=keyed(**who))).status_code == 201
    assert acts.done == ["a"] * 3


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "tab\there", "ümlaut", "\x7f"])
async def test_keys_that_are_none(key: str) -> None:
    acts = Acts()
    async with protected(*acts.routes(), answers=MemoryStore()) as client:
        headers = [*caller().items(), ("idempotency-key", key.encode("latin-1"))]
        answer = await client.post("/acts", json={"name": "a"}, headers=headers)  # type: ignore[arg-type]  # raw bytes
        assert error_of(answer) == (400, "VALIDATION_ERROR")
        twice = [*caller().items(), ("idempotency-key", "a"), ("idempotency-key", "b")]
        assert (await client.post("/acts", json={"name": "a"}, headers=twice)).status_code == 400
        assert (await client.post("/acts", json={"name": "a"}, headers=keyed("x" * 255))).status_code == 201
    assert acts.done == ["a"]


async def test_while_the_first_is_in_work_the_second_waits_outside() -> None:
    acts = Acts()
    async with protected(*acts.routes(), answers=MemoryStore()) as client:
        first = asyncio.create_task(client.post("/slow", headers=keyed()))
        await acts.going_on.wait()
        second = await client.post("/slow", headers=keyed())
        acts.may_end.set()
        assert (await first).text == "done"
        third = await client.post("/slow", headers=keyed())
    assert error_of(second) == (409, "CONFLICT")
    assert second.headers["retry-after"] == "1"
    assert (third.text, third.headers["idempotent-replayed"]) == ("done", "true")
    assert acts.done == ["slow"]


async def test_an_error_of_ours_is_not_kept_and_one_of_the_callers_is() -> None:
    acts = Acts()
    async with protected(*acts.routes(), answers=MemoryStore()) as client:

        async def ask(key: str) -> httpx_answer:
            answer = await client.post("/acts", json={"name": key}, headers=keyed(key))
            return answer.status_code, answer.headers.get("idempotent-replayed")

        acts.error = RuntimeError("broken")
        assert await ask("ours") == (500, None)
        acts.error = Conflict("Taken.")
        assert await ask("theirs") == (409, None)
        acts.error, acts.status = None, 403
        assert await ask("rights") == (403, None)
        acts.status = 201
        assert await ask("ours") == (201, None)
        assert await ask("theirs") == (409, "true")
        assert await ask("rights") == (201, None)


httpx_answer = tuple[int, str | None]


async def test_what_was_committed_is_not_done_again_when_its_answer_was_lost() -> None:
    """Three ways to lose it: the process dies, the handler is broken off, an error after the commit."""
    acts, store = Acts(), MemoryStore()
    async with protected(*acts.routes(), answers=store) as client:
        begun = await store.begin(TenantContext(ACME, "user:ann"), "dead", "?")
        assert begun == Begun()
        first = asyncio.create_task(client.post("/slow", headers=keyed("late")))
        await acts.going_on.wait()
        store.commit()
        assert error_of(await first) == (503, "UPSTREAM_UNAVAILABLE")
        again = await client.post("/slow", headers=keyed("late"))
    assert error_of(again) == (409, "CONFLICT")
    assert "was carried out, or may have been" in again.json()["error"]["message"]
    assert acts.done == ["slow"]


async def test_what_was_broken_off_before_it_committed_may_be_tried_again() -> None:
    acts, store = Acts(), MemoryStore()
    async with protected(*acts.routes(), answers=store) as client:
        assert (await client.post("/slow", headers=keyed())).status_code == 503
        assert store.rows == {}
        acts.may_end.set()
        assert (await client.post("/slow", headers=keyed())).text == "done"


async def test_a_store_that_fails_at_the_end_does_not_take_the_answer_away() -> None:
    acts, store = Acts(), MemoryStore()
    store.fails = True
    async with protected(*acts.routes(), answers=store) as client:
        assert (await client.post("/acts", json={"name": "a"}, headers=keyed())).json() == {"number": 1}
        assert error_of(await client.post("/acts", json={"name": "a"}, headers=keyed())) == (409, "CONFLICT")
    assert acts.done == ["a"]


async def test_an_answer_too_large_to_keep_is_sent_and_not_repeated() -> None:
    acts = Acts()
    async with protected(*acts.routes(), answers=MemoryStore()) as client:
        assert len((await client.post("/large", headers=keyed())).text) == MAX_STORED + 1
        assert (await client.post("/large", headers=keyed())).status_code == 409
    assert acts.done == ["large"]


async def test_where_keys_mean_nothing() -> None:
    acts, store = Acts(), MemoryStore()
    async with protected(*acts.routes(), answers=store) as client:
        for _ in range(2):
            await client.post("/exempt", headers=keyed())
            await client.post("/open", headers=keyed())
            await client.get("/acts", headers=keyed())
        assert error_of(await client.post("/acts", headers={"idempotency-key": "k"}))[0] == 401
    assert (acts.done, store.rows) == (["exempt", "open"] * 2, {})


async def test_many_at_once_are_one() -> None:
    acts = Acts()
    async with protected(*acts.routes(), answers=MemoryStore()) as client:
        found = await asyncio.gather(
            *(client.post("/acts", json={"name": "a"}, headers=keyed()) for _ in range(40))
        )
    assert acts.done == ["a"]
    assert {answer.status_code for answer in found} <= {201, 409}


def test_each_part_of_a_request_makes_another_one() -> None:
    """Also where a store forgets that keys belong to an actor, nobody is given another one's answer."""

    def of(
        actor: str = "user:ann", method: str = "POST", path: str = "/a", query: bytes = b"", body: bytes = b""
    ) -> str:
        scope: Any = {"method": method, "path": path, "query_string": query, "headers": []}
        return fingerprint(scope, TenantContext(ACME, actor), body)

    others = [
        of("user:bob"),
        of(method="PUT"),
        of(path="/b"),
        of(query=b"x"),
        of(body=b"x"),
        of(path="/ax"),
        of(query=b"xy", body=b"z"),
        of(query=b"x", body=b"yz"),  # where one part ends and the next begins counts too
    ]
    assert len({of(), *others}) == len(others) + 1
    assert of() == of()
    assert len(of()) == 64
