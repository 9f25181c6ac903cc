"""The limiter against a real Redis: counts, bursts, all-or-nothing, batches, failures."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from server.embedded import free_port
from storage.limits import UNLIMITED, Limit, LimiterUnavailable, RateLimiter
from tests.support.servers import Addresses

HOUR = 3600.0


@pytest.fixture
async def limiter(addresses: Addresses) -> AsyncIterator[RateLimiter]:
    made = RateLimiter(addresses.redis_url)
    yield made
    await made.aclose()


@pytest.fixture
async def redis(addresses: Addresses) -> AsyncIterator[Redis]:
    async with Redis.from_url(addresses.redis_url) as client:
        yield client


def key() -> str:
    return f"rl:test:{uuid4().hex}"


async def test_a_burst_passes_and_the_next_waits_for_one_interval(limiter: RateLimiter) -> None:
    limit = Limit(key(), 60, HOUR, 3)
    verdicts = [await limiter.check([limit]) for _ in range(5)]
    assert [verdict.allowed for verdict in verdicts] == [True, True, True, False, False]
    assert [verdict.remaining for verdict in verdicts] == [2, 1, 0, 0, 0]
    assert {verdict.limit for verdict in verdicts} == {3}
    assert [round(verdict.reset_seconds / 60) for verdict in verdicts] == [1, 2, 3, 3, 3]
    # A refused request does not move the moment at which one passes.
    assert 55 < verdicts[4].retry_after <= verdicts[3].retry_after <= 60
    assert verdicts[0].retry_after == 0


async def test_room_comes_back_with_time(limiter: RateLimiter, redis: Redis) -> None:
    limit = Limit(key(), 60, HOUR, 2)
    assert [(await limiter.check([limit])).allowed for _ in range(3)] == [True, True, False]
    # A minute passes: the theoretical arrival time is a minute nearer.
    await redis.set(limit.key, int(await redis.get(limit.key)) - 60_000_000)
    assert [(await limiter.check([limit])).allowed for _ in range(2)] == [True, False]


async def test_a_refused_check_consumes_nothing_of_its_other_keys(limiter: RateLimiter, redis: Redis) -> None:
    wide, narrow = Limit(key(), 100, HOUR, 100), Limit(key(), 1, HOUR, 1)
    first = await limiter.check([wide, narrow])
    assert (first.allowed, first.which, first.remaining) == (True, 1, 0)
    before = await redis.get(wide.key)
    for _ in range(3):
        refused = await limiter.check([wide, narrow])
        assert (refused.allowed, refused.which) == (False, 1)
    assert await redis.get(wide.key) == before
    assert (await limiter.check([wide])).remaining == 98


async def test_the_longest_wait_decides(limiter: RateLimiter) -> None:
    short, long = Limit(key(), 60, HOUR, 1), Limit(key(), 1, HOUR, 1)
    assert (await limiter.check([short, long])).allowed
    refused = await limiter.check([short, long])
    assert refused.which == 1
    assert 3590 < refused.retry_after <= 3600


async def test_the_same_key_twice_in_a_check_counts_twice(limiter: RateLimiter) -> None:
    limit = Limit(key(), 60, HOUR, 4)
    assert (await limiter.check([limit, limit])).remaining == 2
    assert (await limiter.check([limit])).remaining == 1
    assert not (await limiter.check([limit, limit])).allowed
    assert (await limiter.check([limit])).allowed


async def test_what_is_asked_at_once_travels_in_one_call_and_is_counted_exactly(
    limiter: RateLimiter, redis: Redis
) -> None:
    shared, own = key(), [key() for _ in range(50)]
    before = (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
    verdicts = await asyncio.gather(
        *(limiter.check([Limit(shared, 60, HOUR, 20), Limit(mine, 60, HOUR, 5)]) for mine in own)
    )
    after = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert [verdict.allowed for verdict in verdicts] == [True] * 20 + [False] * 30
    assert after - before == 1
    assert await redis.exists(*own) == 20


async def test_two_processes_share_what_they_count(limiter: RateLimiter, addresses: Addresses) -> None:
    other = RateLimiter(addresses.redis_url)
    limit = Limit(key(), 60, HOUR, 10)
    verdicts = await asyncio.gather(
        *(asker.check([limit]) for _ in range(15) for asker in (limiter, other)), return_exceptions=False
    )
    await other.aclose()
    assert sum(verdict.allowed for verdict in verdicts) == 10


async def test_more_than_one_call_takes_is_split(limiter: RateLimiter) -> None:
    limit = Limit(key(), 600, HOUR, 300)
    verdicts = await asyncio.gather(*(limiter.check([limit]) for _ in range(600)))
    assert sum(verdict.allowed for verdict in verdicts) == 300


async def test_keys_expire_when_they_say_nothing_any_more(limiter: RateLimiter, redis: Redis) -> None:
    limit = Limit(key(), 10, 100.0, 5)
    await limiter.check([limit])
    assert 10_000 <= await redis.pttl(limit.key) <= 11_000


async def test_a_redis_that_forgot_the_script_is_taught_it(limiter: RateLimiter, redis: Redis) -> None:
    limit = Limit(key(), 60, HOUR, 3)
    assert (await limiter.check([limit])).allowed
    await redis.script_flush()
    assert (await limiter.check([limit])).remaining == 1


async def test_no_limit_asks_nobody() -> None:
    limiter = RateLimiter(f"redis://127.0.0.1:{free_port()}")
    assert await limiter.check([]) == UNLIMITED
    await limiter.aclose()


@pytest.mark.parametrize("wrong", [Limit("k", 0, 1, 1), Limit("k", 1, 0, 1), Limit("k", 1, 1, 0)])
async def test_numbers_that_limit_nothing_are_a_mistake(limiter: RateLimiter, wrong: Limit) -> None:
    with pytest.raises(ValueError, match="positive"):
        await limiter.check([wrong])


async def test_no_redis_is_said_at_once() -> None:
    limiter = RateLimiter(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(LimiterUnavailable) as caught:
        await limiter.check([Limit("k", 1, 1, 1)])
    assert (caught.value.status, caught.value.retryable) == (503, True)
    await limiter.aclose()


async def test_a_black_hole_is_given_up_after_a_bounded_time_by_all_who_wait() -> None:
    held: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        while await reader.read(4096):
            pass

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    limiter = RateLimiter(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    try:
        async with asyncio.timeout(2):
            answers = await asyncio.gather(
                *(limiter.check([Limit("k", 1, 1, 1)]) for _ in range(300)), return_exceptions=True
            )
        assert {type(answer) for answer in answers} == {LimiterUnavailable}
    finally:
        await limiter.aclose()
        for writer in held:
            writer.close()
        server.close()
        await server.wait_closed()


async def test_an_asker_who_left_does_not_disturb_the_others(limiter: RateLimiter) -> None:
    limit = Limit(key(), 60, HOUR, 5)
    leaving = asyncio.create_task(limiter.check([limit]))
    staying = asyncio.create_task(limiter.check([limit]))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).allowed
    assert leaving.cancelled() or (await asyncio.wait({leaving}))[0]
