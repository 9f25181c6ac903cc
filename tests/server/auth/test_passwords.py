"""Hashing: right and wrong passwords, and what a flood of them may not do."""

import asyncio
import os
import sys
import threading

import pytest
from argon2 import PasswordHasher

from server.auth import passwords as module
from server.auth.passwords import MAX_CHARACTERS, BoundedExecutor, Busy, Passwords, hash_password


async def test_a_hash_has_the_decided_parameters_and_fits_its_password_alone() -> None:
    passwords = Passwords()
    stored = await passwords.hash("correct horse battery")
    assert stored.rsplit("$", 2)[0] == "$argon2id$v=19$m=19456,t=2,p=1"
    assert await passwords.verify(stored, "correct horse battery") is True
    assert await passwords.verify(stored, "correct horse batterY") is False
    assert await passwords.verify(None, "nobody has this password") is False
    assert await passwords.verify("no hash", "correct horse battery") is False
    passwords.close()


async def test_the_same_text_in_another_unicode_form_is_the_same_password() -> None:
    passwords = Passwords()
    stored = await passwords.hash("Gru\u0308n und \ufb01delity 12")
    assert await passwords.verify(stored, "Gr\u00fcn und fidelity 12") is True
    passwords.close()


async def test_what_cannot_be_a_password_costs_a_comparison_and_fails() -> None:
    passwords = Passwords()
    stored = hash_password("x" * MAX_CHARACTERS)
    assert await passwords.verify(stored, "x" * MAX_CHARACTERS) is True
    for wrong in ("x" * (MAX_CHARACTERS + 1), "\ud800", ""):
        assert await passwords.verify(stored, wrong) is False
    for refused in ("x" * (MAX_CHARACTERS + 1), "\ud800"):
        with pytest.raises(ValueError, match="too long or is no text"):
            await passwords.hash(refused)
    passwords.close()


def test_weaker_hashes_are_to_be_renewed() -> None:
    passwords = Passwords()
    weak = PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash("p")
    assert passwords.needs_rehash(weak) is True
    assert passwords.needs_rehash("no hash") is True
    assert passwords.needs_rehash(hash_password("p")) is False


async def test_beyond_the_queue_the_answer_is_busy_and_afterwards_there_is_room_again() -> None:
    executor, go = BoundedExecutor("test", threads=2, waiting=3, per_source=10), threading.Event()
    running = [asyncio.create_task(executor.run("a", lambda: go.wait(10))) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(Busy) as refused:
        await executor.run("b", lambda: True)
    assert (refused.value.code, refused.value.status, refused.value.retryable) == ("RATE_LIMITED", 503, True)
    assert refused.value.details == {"retry_after": 2}
    go.set()
    assert await asyncio.gather(*running) == [True] * 5
    assert await executor.run("b", lambda: "room") == "room"
    executor.close()


async def test_one_source_leaves_room_for_others() -> None:
    executor, go = BoundedExecutor("test", threads=1, waiting=9, per_source=2), threading.Event()
    flood = [asyncio.create_task(executor.run("flooder", lambda: go.wait(10))) for _ in range(10)]
    await asyncio.sleep(0)
    other = asyncio.create_task(executor.run("somebody", lambda: "served"))
    await asyncio.sleep(0)
    go.set()
    assert await other == "served"
    results = await asyncio.gather(*flood, return_exceptions=True)
    assert [type(result) for result in results] == [bool] * 2 + [Busy] * 8
    assert await executor.run("flooder", lambda: "served afterwards") == "served afterwards"
    executor.close()


async def test_a_call_that_is_cancelled_keeps_its_thread_and_those_that_wait_are_dropped() -> None:
    executor, started, go = BoundedExecutor("test", 1, 1, 9), threading.Event(), threading.Event()
    ran: list[str] = []

    def slow() -> None:
        started.set()
        go.wait(10)

    running = asyncio.create_task(executor.run(None, slow))
    waiting = asyncio.create_task(executor.run(None, lambda: ran.append("waited")))
    await asyncio.to_thread(started.wait, 10)
    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    # the running one still has its place, the waiting one's is free
    again = asyncio.create_task(executor.run(None, lambda: ran.append("again")))
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await executor.run(None, lambda: None)
    go.set()
    await again
    assert ran == ["again"]
    executor.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a nice value for each thread")
async def test_hashing_threads_stand_behind_the_event_loop() -> None:
    executor = BoundedExecutor("test", 1, 1, 9)

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    here = niceness()
    assert await executor.run(None, niceness) == max(here, 10)
    assert niceness() == here
    executor.close()


async def test_a_flood_is_refused_by_number_and_another_network_still_gets_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go, compared = threading.Event(), []

    def held(stored: str, given: bytes) -> bool:
        go.wait(10)
        compared.append(given)
        return given == b"right"

    monkeypatch.setattr(module, "_matches", held)
    passwords = Passwords()
    flood = [asyncio.create_task(passwords.verify("h", "wrong", "203.0.113.0/24")) for _ in range(200)]
    await asyncio.sleep(0)
    owner = asyncio.create_task(passwords.verify("h", "right", "198.51.100.0/24"))
    await asyncio.sleep(0)
    go.set()
    assert await owner is True
    results = await asyncio.gather(*flood, return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 192
    assert len(compared) == 9
    passwords.close()
