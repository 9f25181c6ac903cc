"""The curve of waits, who is counted with whom, and that Redis and the process's own counters agree."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from server.auth.devices import DEVICE_DAYS, DeviceCookies
from server.auth.lockout import (
    ACCOUNT,
    EVERYBODY,
    NETWORK,
    Counter,
    Delay,
    Guard,
    MemoryStore,
    RedisStore,
    Rule,
    Store,
    TooManyAttempts,
    network_of,
)
from storage.redis import make_pool
from tests.support.servers import Addresses

HOME, ELSEWHERE = "198.51.100.7", "203.0.113.9"


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Away:
    """A Redis that does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    async def apply(self, *_: object) -> tuple[float, int]:
        self.asked += 1
        raise RedisConnectionError("away")


@pytest.fixture
async def redis(addresses: Addresses) -> AsyncIterator[Redis]:
    made = Redis(connection_pool=make_pool(addresses.redis_url))
    yield made
    await made.aclose(close_connection_pool=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["redis", "memory"])
def store(request: pytest.FixtureRequest, clock: Clock) -> Store:
    if request.param == "memory":
        return MemoryStore(clock)
    redis: Redis = request.getfixturevalue("redis")
    return RedisStore(redis, clock)


@pytest.fixture
def guard(store: Store, clock: Clock) -> Guard:
    secret = uuid4().hex  # names the counters, so that tests do not share them in Redis
    return Guard(secret, DeviceCookies(secret, now=clock), store, now=clock)


async def fail(guard: Guard, account: str, ip: str = HOME, device: str | None = None) -> None:
    assert await guard.before(account, ip, device) is None
    await guard.failed(account, ip, device)


async def test_the_curve_five_free_then_one_second_to_fifteen_minutes(guard: Guard, clock: Clock) -> None:
    account = guard.account_key("acme", "erika@example.com")
    waits = []
    for _ in range(18):
        while (delay := await guard.before(account, HOME)) is not None:
            waits.append(delay.seconds)
            clock.now += delay.seconds
        await guard.failed(account, HOME)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]


async def test_never_for_ever(guard: Guard, clock: Clock) -> None:
    account = guard.account_key("a")
    for _ in range(60):
        if delay := await guard.before(account, HOME):
            clock.now += delay.seconds
            assert await guard.before(account, HOME) is None
        await guard.failed(account, HOME)
    clock.now += 900
    assert await guard.before(account, HOME) is None
    await guard.failed(account, HOME)
    clock.now += 60 * ACCOUNT.leak
    for _ in range(4):
        await fail(guard, account)
    assert await guard.before(account, HOME) is None


async def test_a_hundred_at_the_same_time_are_not_a_hundred_guesses(guard: Guard) -> None:
    account = guard.account_key("a")
    admitted = await asyncio.gather(*(guard.before(account, HOME) for _ in range(40)))
    assert [delay for delay in admitted if delay is None] == [None] * 5
    assert {delay for delay in admitted if delay} == {Delay(1, "pair")}


async def test_an_account_is_counted_over_all_networks(guard: Guard) -> None:
    account = guard.account_key("a")
    for part in range(5):
        await fail(guard, account, f"10.0.{part}.1")
    assert await guard.before(account, "10.9.0.1") == Delay(1, "account")
    assert await guard.before(guard.account_key("b"), "10.0.0.1") is None


async def test_a_known_device_is_not_locked_out_by_others_and_has_limits_of_its_own(
    guard: Guard, clock: Clock
) -> None:
    account = guard.account_key("a")
    device = guard.issue_device(account)
    for _ in range(8):
        if delay := await guard.before(account, ELSEWHERE):
            clock.now += delay.seconds
            assert await guard.before(account, ELSEWHERE) is None
        await guard.failed(account, ELSEWHERE)
    assert await guard.before(account, HOME) == Delay(8, "account")
    assert await guard.before(account, HOME, device) is None
    assert await guard.before(account, HOME, "forged." + device) == Delay(8, "account")
    assert await guard.before(account, HOME, guard.issue_device(guard.account_key("b"))) == Delay(
        8, "account"
    )
    await guard.failed(account, HOME, device)
    for _ in range(4):
        await fail(guard, account, HOME, device)
    assert await guard.before(account, HOME, device) == Delay(1, "device")
    assert await guard.before(account, HOME, guard.issue_device(account)) is None


async def test_success_forgets_this_persons_failures_but_not_an_attackers(guard: Guard, clock: Clock) -> None:
    account = guard.account_key("a")
    for _ in range(3):
        await fail(guard, account, HOME)
    assert await guard.before(account, HOME) is None
    await guard.succeeded(account, HOME)
    await fail(guard, account, ELSEWHERE)
    await fail(guard, account, ELSEWHERE)
    assert await guard.before(account, ELSEWHERE) == Delay(1, "account")
    clock.now += 1
    assert await guard.before(account, HOME) is None
    await guard.succeeded(account, HOME)
    # The account's five failures still stand, and the owner's success opens the gate to nobody else.
    assert await guard.before(account, HOME) == Delay(2, "account")
    clock.now += 2
    await fail(guard, account, HOME)
    assert await guard.before(account, ELSEWHERE) == Delay(2, "account")


async def test_success_on_a_known_device_gives_it_all_free_attempts_back(guard: Guard) -> None:
    account = guard.account_key("a")
    device = guard.issue_device(account)
    for _ in range(3):
        for _ in range(4):
            await fail(guard, account, HOME, device)
        assert await guard.before(account, HOME, device) is None
        await guard.succeeded(account, HOME, device)


async def test_an_own_account_does_not_clear_the_networks_count(guard: Guard, clock: Clock) -> None:
    mine = guard.account_key("mine")
    for number in range(NETWORK.free):
        await fail(guard, guard.account_key(f"victim {number}"), "192.0.2.1")
    assert await guard.before(mine, "192.0.2.200") == Delay(1, "network")
    clock.now += 1
    assert await guard.before(mine, "192.0.2.200") is None
    await guard.succeeded(mine, "192.0.2.200")
    delay = await guard.before(guard.account_key("next"), "192.0.2.3")
    assert delay is not None
    assert delay.counter == "network"
    assert await guard.before(guard.account_key("next"), "192.0.3.3") is None


async def test_what_was_not_compared_does_not_count(guard: Guard) -> None:
    account = guard.account_key("a")
    for _ in range(20):
        assert await guard.before(account, HOME) is None
        await guard.withdrawn(account, HOME)


async def test_everybody_together_is_slowed_a_little_and_known_devices_are_not(clock: Clock) -> None:
    store = MemoryStore(clock)
    guard = Guard("s" * 40, DeviceCookies("s" * 40, now=clock), store, now=clock)
    for number in range(EVERYBODY.free):
        await fail(guard, guard.account_key(str(number)), f"10.{number % 250}.{number // 250}.1")
    account = guard.account_key("somebody")
    assert await guard.before(account, HOME) == Delay(1, "everybody")
    assert await guard.before(account, HOME, guard.issue_device(account)) is None


async def test_without_redis_each_process_counts_and_redis_is_not_asked_each_time(clock: Clock) -> None:
    away = Away()
    guard = Guard("s" * 40, DeviceCookies("s" * 40, now=clock), away, now=clock)
    account = guard.account_key("a")
    for _ in range(5):
        await fail(guard, account)
    assert await guard.before(account, HOME) == Delay(1, "pair")
    assert away.asked == 1
    clock.now += 5
    assert await guard.before(account, HOME) is None
    assert away.asked == 2


async def test_both_stores_do_the_same(redis: Redis, clock: Clock) -> None:
    name = uuid4().hex
    counters = [
        Counter("pair", f"{name}:p", Rule(2, 30, 7)),
        Counter("account", f"{name}:a", Rule(3, 100, 11)),
        Counter("network", f"{name}:n", Rule(5, 4, 0.3)),
    ]
    stores: list[Store] = [RedisStore(redis, clock), MemoryStore(clock)]
    operations = ["begin", "fail", "begin", "undo", "begin", "begin", "succeed"]
    seen = []
    for step in range(400):
        operation = operations[(step * step + step // 3) % len(operations)]
        chosen = counters[step % 2 :]
        cleared = frozenset({"pair"}) if step % 5 == 0 else frozenset[str]()
        answers = [await store.apply(operation, chosen, cleared) for store in stores]
        assert answers[0][1] == answers[1][1], (step, answers)
        assert answers[0][0] == pytest.approx(answers[1][0], abs=0.002), (step, answers)
        seen.append(answers[0][1])
        clock.now += (step % 13) * 0.5
    assert {-1, 0, 1} <= set(seen)


async def test_counters_expire_and_hold_no_address(redis: Redis, clock: Clock) -> None:
    secret = uuid4().hex
    guard = Guard(secret, DeviceCookies(secret, now=clock), RedisStore(redis, clock), now=clock)
    before = {key async for key in redis.scan_iter("lockout:*")}
    await fail(guard, guard.account_key("acme", "erika@example.com"))
    made = [key async for key in redis.scan_iter("lockout:*") if key not in before]
    assert len(made) == 4
    for key in made:
        assert b"erika" not in key
        assert b"198" not in key
        assert 0 < await redis.pttl(key) <= (ACCOUNT.leak + ACCOUNT.longest) * 1000


async def test_the_process_keeps_a_bounded_number_of_counters(clock: Clock) -> None:
    store = MemoryStore(clock, most=10)
    for number in range(100):
        await store.apply("begin", [Counter("pair", str(number), ACCOUNT)], frozenset())
    assert len(store._buckets) == 10


def test_accounts_are_named_by_a_keyed_hash_of_what_was_typed(clock: Clock) -> None:
    guard = Guard("s" * 40, DeviceCookies("s" * 40, now=clock), None, now=clock)
    name = guard.account_key("acme", "Erika@Example.com ")
    assert name == guard.account_key("acme", "erika@example.com")
    assert name != guard.account_key("globex", "erika@example.com")
    assert name != Guard("t" * 40, DeviceCookies("t" * 40), None).account_key("acme", "erika@example.com")
    assert len(guard.account_key("\ud800")) == 32


def test_a_device_cookie_is_its_accounts_and_ends(clock: Clock) -> None:
    old, cookies = DeviceCookies("o" * 40, now=clock), DeviceCookies("s" * 40, ("o" * 40,), clock)
    cookie = cookies.issue("a")
    device = cookies.read(cookie, "a")
    assert device == cookie.split(".")[0]
    assert cookies.read(old.issue("a"), "a") is not None
    assert old.read(cookie, "a") is None
    for wrong in (
        None,
        "",
        "..",
        cookie[:-1],
        "x" + cookie,
        cookie.replace(".", ".1", 1),
        "ü." + cookie,
        "\ud800",
    ):
        assert cookies.read(wrong, "a") is None
    assert cookies.read(cookie, "b") is None
    clock.now += DEVICE_DAYS * 86_400
    assert cookies.read(cookie, "a") == device
    clock.now += 1
    assert cookies.read(cookie, "a") is None


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("198.51.100.7", "198.51.100.0/24"),
        ("::ffff:198.51.100.7", "198.51.100.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("unix", "none"),
    ],
)
def test_networks(ip: str, network: str) -> None:
    assert network_of(ip) == network


def test_the_error_says_how_long_to_wait() -> None:
    error = TooManyAttempts(64)
    assert (error.code, error.status, error.retryable, error.details) == (
        "RATE_LIMITED", 429, True, {"retry_after": 64},
    )  # fmt: skip
