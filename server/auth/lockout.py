"""Guessing is made slow: each failure beyond a few doubles the wait, up to fifteen minutes, never for ever.

Counted apart, as leaky buckets: the account at one network, the account everywhere, the network, everybody. A device
on which the account signed in before (it has a signed cookie) is counted by itself, so that nobody can lock the owner
out by guessing. An attempt is counted when it begins, so a hundred at the same time are not a hundred free guesses.
The counters are in Redis; while it is away each process counts by itself. Unknown accounts are counted like others.
"""

import asyncio
import hashlib
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, ClassVar, Protocol

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from server.auth.devices import DeviceCookies
from server.auth.tokens import derive
from storage.errors import AppError

log = structlog.get_logger(__name__)


class TooManyAttempts(AppError):
    """Wait, then try again. The same for a known and an unknown account."""

    code: ClassVar[str] = "RATE_LIMITED"
    status: ClassVar[int] = 429
    retryable: ClassVar[bool] = True

    def __init__(self, retry_after: int) -> None:
        super().__init__(
            f"Too many failed attempts. Try again in {retry_after} seconds.", retry_after=retry_after
        )


@dataclass(frozen=True)
class Rule:
    """How one counter slows down.

    Attributes:
        free: failures without a wait; the next attempt after so many waits a second, then twice as long each time.
        longest: seconds that a wait lasts at most.
        leak: seconds after which one failure is forgotten.
    """

    free: int
    longest: float
    leak: float


ACCOUNT = Rule(free=5, longest=900, leak=3600)
# A network may be an office or a provider's gateway, with many people behind it.
NETWORK = Rule(free=50, longest=60, leak=10)
EVERYBODY = Rule(free=1000, longest=5, leak=0.1)


@dataclass(frozen=True)
class Delay:
    """How long to wait, in whole seconds, and whose counter says so (for the audit log, not for the answer)."""

    seconds: int
    counter: str


@dataclass(frozen=True)
class Counter:
    """One counter that an attempt falls under."""

    name: str
    key: str
    rule: Rule


# For each counter: failures with their leak, until when it is closed, when it was last changed. ARGV: operation, now (ms),
# then free, longest (ms), leak (ms) for each key. "begin" answers {wait in ms, position} and counts where nothing waits;
# the other operations: "fail" closes from now on, "undo" takes one back, "clear" forgets (by a flag for each key).
_SCRIPT = """
local op, now = ARGV[1], tonumber(ARGV[2])
local state = {}
for i, key in ipairs(KEYS) do
  local at = 3 + (i - 1) * 4
  local s = {free = tonumber(ARGV[at]), longest = tonumber(ARGV[at + 1]), leak = tonumber(ARGV[at + 2]), clear = ARGV[at + 3] == '1'}
  local v = redis.call('HMGET', key, 'n', 'until', 'seen')
  local seen = tonumber(v[3]) or now
  s.n = math.max(0, (tonumber(v[1]) or 0) - math.max(0, now - seen) / s.leak)
  s.till = tonumber(v[2]) or 0
  state[i] = s
end
if op == 'begin' then
  local wait, who = 0, 0
  for i, s in ipairs(state) do
    if s.till - now > wait then wait, who = s.till - now, i end
  end
  if wait > 0 then return {math.ceil(wait), who} end
end
for i, key in ipairs(KEYS) do
  local s = state[i]
  if op == 'begin' then s.n = s.n + 1
  elseif op == 'undo' or op == 'succeed' then
    s.n = math.max(0, s.n - 1)
    if op == 'succeed' and s.clear then s.n = 0 end
    if math.ceil(s.n) < s.free then s.till = 0 end
  end
  if op == 'begin' or op == 'fail' then
    local over = math.ceil(s.n) - s.free
    if over >= 0 then s.till = math.max(s.till, now + math.min(s.longest, 1000 * 2 ^ math.min(over, 30))) end
  end
  if s.n <= 0 then redis.call('DEL', key)
  else
    redis.call('HSET', key, 'n', string.format('%.6f', s.n), 'until', string.format('%.0f', s.till), 'seen', string.format('%.0f', now))
    redis.call('PEXPIRE', key, math.ceil(s.n * s.leak + s.longest))
  end
end
return {0, 0}
"""


class Store(Protocol):
    """Where counters are kept. Operations are those of the script above; each is atomic."""

    async def apply(
        self, operation: str, counters: Sequence[Counter], cleared: frozenset[str]
    ) -> tuple[float, int]: ...


class RedisStore:
    """Counters that all processes share.

    Args:
        redis: over a pool whose calls cannot hang.
        now: seconds since 1970; the hosts' clocks need not agree better than the waits are long.
    """

    def __init__(self, redis: Redis, now: Callable[[], float] = time.time) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._now = now

    async def apply(
        self, operation: str, counters: Sequence[Counter], cleared: frozenset[str]
    ) -> tuple[float, int]:
        arguments: list[Any] = [operation, round(self._now() * 1000)]
        for one in counters:
            arguments += [
                one.rule.free,
                one.rule.longest * 1000,
                one.rule.leak * 1000,
                int(one.name in cleared),
            ]
        async with asyncio.timeout(0.5):
            wait, position = await self._script(keys=[one.key for one in counters], args=arguments)
        return wait / 1000, position - 1


@dataclass
class _Bucket:
    n: float = 0.0
    till: float = 0.0
    seen: float = 0.0


class MemoryStore:
    """The same in this process, for when Redis is away.

    Args:
        most: counters kept; the one that was not changed for longest goes first.
    """

    def __init__(self, now: Callable[[], float] = time.time, most: int = 50_000) -> None:
        self._now = now
        self._most = most
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    async def apply(
        self, operation: str, counters: Sequence[Counter], cleared: frozenset[str]
    ) -> tuple[float, int]:
        now = round(self._now() * 1000) / 1000
        buckets = [self._leaked(one, now) for one in counters]
        if operation == "begin":
            waits = [bucket.till - now for bucket in buckets]
            if (wait := max(waits)) > 0:
                return wait, waits.index(wait)
        for one, bucket in zip(counters, buckets, strict=True):
            if operation == "begin":
                bucket.n += 1
            elif operation in {"undo", "succeed"}:
                bucket.n = 0.0 if operation == "succeed" and one.name in cleared else max(0.0, bucket.n - 1)
                if math.ceil(round(bucket.n, 6)) < one.rule.free:
                    bucket.till = 0.0
            if (
                operation in {"begin", "fail"}
                and (over := math.ceil(round(bucket.n, 6)) - one.rule.free) >= 0
            ):
                bucket.till = max(bucket.till, now + min(one.rule.longest, 2.0 ** min(over, 30)))
            if bucket.n <= 0:
                self._buckets.pop(one.key, None)
            else:
                self._buckets[one.key] = bucket
                self._buckets.move_to_end(one.key)
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return 0.0, -1

    def _leaked(self, counter: Counter, now: float) -> _Bucket:
        old = self._buckets.get(counter.key) or _Bucket(seen=now)
        n = max(0.0, old.n - max(0.0, now - old.seen) / counter.rule.leak)
        return _Bucket(n, old.till, now)


class Guard:
    """Asked before a password or a code is compared, and told how it went.

    Args:
        secret_key: of the installation; counters are named by keyed hashes, so Redis holds no e-mail address.
        shared: the counters in Redis; None counts in this process only.
        alone: the counters in this process.
        pause: seconds for which a Redis that failed is not asked again.
    """

    def __init__(
        self,
        secret_key: str,
        devices: DeviceCookies,
        shared: Store | None,
        alone: Store | None = None,
        pause: float = 5.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._key = derive(secret_key, "lockout")
        self._devices = devices
        self._shared = shared
        self._alone = alone or MemoryStore(now)
        self._pause = pause
        self._now = now
        self._resume = -math.inf

    def account_key(self, *parts: str) -> str:
        """The name under which an account is counted, known or not, such as of the tenant's name and the address."""
        text = "\x00".join(part.strip().casefold() for part in parts)
        return hmac.new(self._key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]

    def issue_device(self, account_key: str) -> str:
        """The value of the device cookie; set it after each sign-in that succeeded."""
        return self._devices.issue(account_key)

    async def before(self, account_key: str, ip: str, device: str | None = None) -> Delay | None:
        """How long to wait; None where the attempt may begin, which counts it. Then one of ``failed``,
        ``succeeded`` and ``withdrawn`` must follow; an attempt that vanished counts as failed.

        Args:
            account_key: of ``account_key()``.
            ip: of the caller, as a trusted proxy says.
            device: the cookie's value.
        """
        counters = self._counters(account_key, ip, device)
        seconds, position = await self._apply("begin", counters)
        return Delay(max(1, math.ceil(seconds)), counters[position].name) if seconds > 0 else None

    async def failed(self, account_key: str, ip: str, device: str | None = None) -> None:
        """The wait begins now, not when the attempt began."""
        await self._apply("fail", self._counters(account_key, ip, device))

    async def succeeded(self, account_key: str, ip: str, device: str | None = None) -> None:
        """Forget the failures of this person here. Those of the account elsewhere stay: an attacker who is at it
        gains nothing by the owner's signing in.
        """
        await self._apply("succeed", self._counters(account_key, ip, device), frozenset({"pair", "device"}))

    async def withdrawn(self, account_key: str, ip: str, device: str | None = None) -> None:
        """Nothing was compared (``Busy``, or an error of ours): the attempt does not count."""
        await self._apply("undo", self._counters(account_key, ip, device))

    def _counters(self, account_key: str, ip: str, device: str | None) -> list[Counter]:
        if known := self._devices.read(device, account_key):
            return [Counter("device", self._name("d", account_key, known), ACCOUNT)]
        network = network_of(ip)
        return [
            Counter("pair", self._name("p", account_key, network), ACCOUNT),
            Counter("account", self._name("a", account_key), ACCOUNT),
            Counter("network", self._name("n", network), NETWORK),
            Counter("everybody", self._name("e"), EVERYBODY),
        ]

    def _name(self, kind: str, *parts: str) -> str:
        digest = hmac.new(self._key, "\x00".join((kind, *parts)).encode(), hashlib.sha256).hexdigest()
        return f"lockout:{kind}:{digest[:32]}"

    async def _apply(
        self, operation: str, counters: Sequence[Counter], cleared: frozenset[str] = frozenset()
    ) -> tuple[float, int]:
        if self._shared is not None and self._now() >= self._resume:
            try:
                return await self._shared.apply(operation, counters, cleared)
            except (RedisError, OSError, TimeoutError) as error:
                self._resume = self._now() + self._pause
                log.warning("lockout_without_redis", error=type(error).__name__)
        return await self._alone.apply(operation, counters, cleared)


def network_of(ip: str) -> str:
    """The /24 or, of version 6, the /48 that the address is in; what is no address is one network of its own."""
    try:
        address = ip_address(ip)
    except ValueError:
        return "none"
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(ip_network((address, 48 if address.version == 6 else 24), strict=False))
