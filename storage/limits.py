"""How often somebody may do something: GCRA over Redis, many questions in one script call.

GCRA (the generic cell rate algorithm, ITU-T I.371) keeps one number for each key: the theoretical arrival time (TAT) of the next request
if all came evenly. A request moves the TAT on by ``period / rate``; it is refused where that would put the TAT more than
``burst * period / rate`` ahead of the clock. The clock is Redis's, so that processes with different clocks agree.
"""

import asyncio
import hashlib
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from storage.errors import UpstreamUnavailable
from storage.redis import make_pool

SECONDS_TO_ANSWER = 0.25
# Bounds the time for which one script call keeps Redis from everybody else.
CHECKS_PER_CALL = 256

# One argument: msgpack of a list of checks; a check is a flat list: key, microseconds between requests, microseconds of tolerance, …
# The answer is msgpack of a flat list, three numbers a check: 1 or 0; the index of the limit that decides; how far that limit's TAT is
# ahead of the clock in microseconds, this request included. Keys travel in the argument: cluster mode, which needs KEYS, is not used.
# A check that is refused writes nothing, for none of its keys. A key that several checks name is read and written once.
_SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local checks = cmsgpack.unpack(ARGV[1])
local tats, changed, order, answer = {}, {}, {}, {}
for c = 1, #checks do
  local check, refused, least, which, ahead, wait = checks[c], false, nil, 0, 0, -1
  local moved = {}
  for i = 1, #check, 3 do
    local key, step, tolerance = check[i], check[i + 1], check[i + 2]
    local tat = moved[key] or tats[key]
    if not tat then
      tat = tonumber(redis.call('GET', key) or 0)
      tats[key] = tat
    end
    if tat < now then tat = now end
    local mine = tat + step
    local over = mine - tolerance - now
    if over > 0 then
      refused = true
      if over > wait then wait, which, ahead = over, (i - 1) / 3, mine - now end
    elseif not refused then
      local remaining = math.floor(-over / step)
      if not least or remaining < least then least, which, ahead = remaining, (i - 1) / 3, mine - now end
    end
    moved[key] = mine
  end
  if not refused then
    for key, mine in pairs(moved) do
      tats[key] = mine
      if not changed[key] then changed[key] = true; order[#order + 1] = key end
    end
  end
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3] = refused and 0 or 1, which, math.floor(ahead)
end
for i = 1, #order do
  local tat = tats[order[i]]
  redis.call('SET', order[i], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000) + 1000)
end
return cmsgpack.pack(answer)
"""
_SHA = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[float]).decode


class LimiterUnavailable(UpstreamUnavailable):
    """Redis did not say in time whether the request is within its limits."""


class Limit(NamedTuple):
    """One limit for one key.

    Attributes:
        key: the Redis key; built by ``TenantContext.redis_key`` where a tenant is known.
        rate_per_period: requests that may be made in a period, evenly.
        period_seconds: length of the period.
        burst: requests that may come at once after silence, at least 1.
    """

    key: str
    rate_per_period: int
    period_seconds: float
    burst: int


class Verdict(NamedTuple):
    """What came of a check.

    Attributes:
        allowed: whether the request may go on; only then it was counted.
        limit: the deciding limit's burst, which is what ``remaining`` counts down from.
        remaining: requests that could follow at once.
        reset_seconds: seconds until the deciding limit is as if nothing had been asked.
        retry_after: seconds after which the refused request would pass; 0 for an allowed one.
        which: the deciding limit's place in the list that was checked: the refusing one with the longest wait, else the one with the
            fewest requests left.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: float
    retry_after: float
    which: int


UNLIMITED = Verdict(True, 0, 0, 0.0, 0.0, -1)


class RateLimiter:
    """Asks Redis for all that waits in one call: while a call is on its way, further checks gather for the next.

    One client serves one event loop. ``aclose`` at the end.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis: Redis = Redis(connection_pool=make_pool(redis_url))
        self._waiting: list[tuple[Sequence[Limit], asyncio.Future[Verdict]]] = []
        self._flight: asyncio.Task[None] | None = None

    async def check(self, limits: Sequence[Limit]) -> Verdict:
        """Count one request against all limits, or against none of them where one refuses.

        Raises:
            LimiterUnavailable: Redis failed or took longer than a quarter of a second; the caller decides what that means.
            ValueError: a limit's numbers are not positive.
        """
        if not limits:
            return UNLIMITED
        for limit in limits:
            if limit.rate_per_period < 1 or limit.burst < 1 or limit.period_seconds <= 0:
                raise ValueError("rate, burst and period of a limit are positive")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Verdict] = loop.create_future()
        self._waiting.append((limits, answer))
        if self._flight is None:
            # The task begins in the loop's next round: whoever asks until then travels with it.
            self._flight = loop.create_task(self._fly(), name="rate-limiter")
        return await answer

    async def aclose(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            with suppress(asyncio.CancelledError):
                await self._flight
        await self._redis.aclose(close_connection_pool=True)

    async def _fly(self) -> None:
        batch: list[tuple[Sequence[Limit], asyncio.Future[Verdict]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:CHECKS_PER_CALL], self._waiting[CHECKS_PER_CALL:]
                async with asyncio.timeout(SECONDS_TO_ANSWER):
                    numbers = await self._ask([_flat(limits) for limits, _ in batch])
                for (limits, answer), at in zip(batch, range(0, len(numbers), 3), strict=True):
                    if not answer.done():  # its asker may be gone
                        answer.set_result(_verdict(limits, *numbers[at : at + 3]))
                batch = []
        except (RedisError, OSError, TimeoutError) as error:
            self._fail(batch, error)
        except BaseException as error:  # ended, or broken: whoever waits must hear of it
            self._fail(batch, error)
            raise
        finally:
            self._flight = None

    def _fail(
        self, batch: list[tuple[Sequence[Limit], asyncio.Future[Verdict]]], error: BaseException
    ) -> None:
        """Nobody who waits waits longer: those who came later would run into the same wall."""
        waiting, self._waiting = [*batch, *self._waiting], []
        for _, answer in waiting:
            if not answer.done():
                refused = LimiterUnavailable("The service is busy. Try again in a moment.")
                refused.__cause__ = error
                answer.set_exception(refused)

    async def _ask(self, checks: list[list[Any]]) -> list[float]:
        packed = _encode(checks)
        try:
            answer = await self._redis.execute_command("EVALSHA", _SHA, 0, packed)  # type: ignore[no-untyped-call]  # redis-py has no types here
        except NoScriptError:  # a Redis that was restarted has forgotten it
            answer = await self._redis.execute_command("EVAL", _SCRIPT, 0, packed)  # type: ignore[no-untyped-call]  # as above
        return _decode(answer)


def _flat(limits: Sequence[Limit]) -> list[Any]:
    flat: list[Any] = []
    for key, rate, period, burst in limits:
        step = max(1, round(period * 1e6 / rate))
        flat += (key, step, step * burst)
    return flat


def _verdict(limits: Sequence[Limit], allowed: float, which: float, ahead: float) -> Verdict:
    limit = limits[int(which)]
    step = max(1, round(limit.period_seconds * 1e6 / limit.rate_per_period))
    room = limit.burst * step - ahead
    if allowed:
        return Verdict(True, limit.burst, int(room // step), ahead / 1e6, 0.0, int(which))
    # ``ahead`` holds the request that was refused, and so was not counted.
    return Verdict(False, limit.burst, 0, (ahead - step) / 1e6, math.ceil(-room) / 1e6, int(which))
