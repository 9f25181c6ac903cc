"""How often which route may be asked: classes of routes as data, and the two places where they are counted.

A route names its class in ``opt={"limit": "login"}``; without one, ``read`` or ``write`` by its method. The client's address is counted
before anybody looks at credentials; user, key and tenant are counted by the guard, when it knows them.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import structlog
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.exceptions import WebSocketException
from litestar.types import ASGIApp, Receive, Scope, Send

from server.protection.address import client_address, limit_prefix
from server.protection.errors import RateLimited
from server.protection.settings import ProtectionSettings
from storage.errors import AppError, ConfigurationError
from storage.limits import Limit, LimiterUnavailable, RateLimiter, Verdict
from storage.tenancy import TenantContext

log = structlog.get_logger(__name__)

WHO = ("ip", "user", "key", "tenant")


@dataclass(frozen=True)
class Rate:
    """Requests in a period of seconds, and how many of them may come at once."""

    requests: int
    seconds: int
    burst: int

    @property
    def policy(self) -> str:
        """Parameters of the RateLimit-Policy header: quota and window in seconds."""
        return f"q={self.requests};w={self.seconds}"


@dataclass(frozen=True)
class LimitClass:
    """What holds for the routes of a class.

    Attributes:
        rates: by whom is counted: ``ip``, ``user``, ``key``, ``tenant``. Whoever is not named is not counted.
        on_failure: what happens while Redis does not answer: ``open`` lets requests pass, ``closed`` answers 503.
    """

    rates: Mapping[str, Rate] = field(default_factory=dict)
    on_failure: Literal["open", "closed"] = "open"


CLASSES: Mapping[str, LimitClass] = MappingProxyType(
    {
        "default": LimitClass(
            {
                "ip": Rate(1200, 60, 300),
                "user": Rate(600, 60, 150),
                "key": Rate(1200, 60, 300),
                "tenant": Rate(6000, 60, 1500),
            }
        ),
        "read": LimitClass(
            {
                "ip": Rate(2400, 60, 600),
                "user": Rate(1200, 60, 300),
                "key": Rate(2400, 60, 600),
                "tenant": Rate(12000, 60, 3000),
            }
        ),
        "write": LimitClass(
            {
                "ip": Rate(1200, 60, 300),
                "user": Rate(600, 60, 150),
                "key": Rate(1200, 60, 300),
                "tenant": Rate(6000, 60, 1500),
            }
        ),
        # Guessing one account's password is stopped by the account's own counter; this stops guessing many accounts' passwords.
        "login": LimitClass({"ip": Rate(60, 300, 20), "user": Rate(30, 300, 10)}, "closed"),
        "export": LimitClass(
            {
                "ip": Rate(30, 3600, 10),
                "user": Rate(10, 3600, 5),
                "key": Rate(10, 3600, 5),
                "tenant": Rate(20, 3600, 10),
            },
            "closed",
        ),
        "upload": LimitClass(
            {
                "ip": Rate(240, 60, 60),
                "user": Rate(120, 60, 30),
                "key": Rate(240, 60, 60),
                "tenant": Rate(600, 60, 200),
            }
        ),
        # A provider's servers share few addresses, and what is refused comes again.
        "webhook": LimitClass({"ip": Rate(12000, 60, 3000), "tenant": Rate(12000, 60, 3000)}),
        "public": LimitClass({"ip": Rate(600, 60, 200)}),
        "health": LimitClass(),
    }
)

_RATE = re.compile(r"(\d{1,9})/(\d{1,7})(?::(\d{1,9}))?")


def classes_of(overrides: Mapping[str, Mapping[str, str]]) -> dict[str, LimitClass]:
    """The classes with an installation's own numbers: ``{"login": {"ip": "30/300:10", "user": "off", "on_failure": "open"}}``.

    Raises:
        ConfigurationError: an unknown class or counter, or a rate of another form than ``requests/seconds[:burst]``.
    """
    made = dict(CLASSES)
    for name, changes in overrides.items():
        if name not in made:
            raise ConfigurationError(f"RATE_LIMITS: there is no class {name!r}.")
        rates = dict(made[name].rates)
        for who, text in changes.items():
            if who == "on_failure" and text in {"open", "closed"}:
                made[name] = replace(made[name], on_failure=text)  # type: ignore[arg-type]  # checked in the line above
            elif who in WHO and text == "off":
                rates.pop(who, None)
            elif who in WHO and (match := _RATE.fullmatch(text)):
                requests, seconds = int(match[1]), int(match[2])
                burst = int(match[3] or match[1])
                if not (requests and seconds and burst):
                    raise ConfigurationError(f"RATE_LIMITS: {name}.{who}: {text!r} lets nothing pass.")
                rates[who] = Rate(requests, seconds, burst)
            else:
                raise ConfigurationError(
                    f"RATE_LIMITS: {name}.{who}: {text!r} is not requests/seconds[:burst]."
                )
        made[name] = replace(made[name], rates=rates)
    return made


class RateLimits:
    """Counts requests by the classes. What was found is left in the scope's state for the answer's headers."""

    def __init__(self, limiter: RateLimiter, settings: ProtectionSettings) -> None:
        self._limiter = limiter
        self._trusted = settings.networks
        self._classes = classes_of(settings.rate_limits)

    def class_name(self, scope: Scope) -> str:
        """The class of the route that was found; ``default`` where none was. Names were checked by ``Protection.install``."""
        handler = scope.get("route_handler")
        if handler is None:
            return "default"
        name = handler.opt.get("limit")
        if name is None:
            method = scope.get("method", "GET")
            return "read" if method in {"GET", "HEAD", "OPTIONS"} else "write"
        return str(name)

    def check_name(self, name: object) -> None:
        """At the start.

        Raises:
            ConfigurationError: there is no class of that name.
        """
        if name is not None and name not in self._classes:
            raise ConfigurationError(f"There is no class of limits named {name!r}.")

    async def check_address(self, scope: Scope, name: str | None = None) -> None:
        """Count a request for its client's address.

        Raises:
            RateLimited: the address has had its share.
            LimiterUnavailable: nobody can tell, and the class is closed then.
        """
        name = name or self.class_name(scope)
        rate = self._classes[name].rates.get("ip")
        if rate is None:
            return
        prefix = limit_prefix(client_address(scope, self._trusted))
        limit = Limit(f"rl:{name}:ip:{prefix}", rate.requests, rate.seconds, rate.burst)
        await self._check(scope, name, ["ip"], [limit])

    async def check_caller(
        self,
        connection: ASGIConnection[Any, Any, Any, Any],
        context: TenantContext,
        *,
        user: str | None = None,
        key: str | None = None,
    ) -> None:
        """Count a request for whoever makes it, together: nothing is counted where one of them has had its share.

        Args:
            connection: the request; its route says the class.
            context: the caller's tenant.
            user: the id of the person, where it is one.
            key: the id of the API key, where it is one.

        Raises:
            RateLimited: user, key or tenant has had its share.
            LimiterUnavailable: nobody can tell, and the class is closed then.
        """
        name = self.class_name(connection.scope)
        rates = self._classes[name].rates
        who, limits = [], []
        for kind, value in (("user", user), ("key", key), ("tenant", "all")):
            if value is not None and (rate := rates.get(kind)):
                who.append(kind)
                redis_key = context.redis_key("rl", name, kind, value)
                limits.append(Limit(redis_key, rate.requests, rate.seconds, rate.burst))
        if limits:
            await self._check(connection.scope, name, who, limits)

    async def _check(self, scope: Scope, name: str, who: list[str], limits: list[Limit]) -> None:
        try:
            verdict = await self._limiter.check(limits)
        except LimiterUnavailable:
            closed = self._classes[name].on_failure == "closed"
            log.warning("limiter_unavailable", limit_class=name, refused=closed)
            if closed:
                scope["state"]["retry_after"] = 1
                raise
            return
        kind = who[verdict.which]
        state: dict[str, Any] = scope["state"]
        seen: tuple[str, str, Verdict] | None = state.get("rate_limit")
        # Of two counts the answer tells the tighter one.
        if seen is None or not verdict.allowed or verdict.remaining < seen[2].remaining:
            state["rate_limit"] = (kind, self._classes[name].rates[kind].policy, verdict)
        if not verdict.allowed:
            state["retry_after"] = max(1, math.ceil(verdict.retry_after))
            raise RateLimited("Too many requests. Wait as long as Retry-After says.", limit=kind)


def rate_headers(found: tuple[str, str, Verdict]) -> list[tuple[bytes, bytes]]:
    """RateLimit and RateLimit-Policy as in draft-ietf-httpapi-ratelimit-headers-08 on, and the three headers of the drafts before."""
    kind, policy, verdict = found
    reset = math.ceil(verdict.reset_seconds)
    return [
        (b"ratelimit-policy", f'"{kind}";{policy}'.encode()),
        (b"ratelimit", f'"{kind}";r={verdict.remaining};t={reset}'.encode()),
        (b"ratelimit-limit", b"%d" % verdict.limit),
        (b"ratelimit-remaining", b"%d" % verdict.remaining),
        (b"ratelimit-reset", b"%d" % reset),
    ]


class AddressLimitMiddleware:
    """Counts each request and each socket's opening for the client's address, before the guard."""

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._limits.check_address(scope)
        except AppError as refused:
            if scope["type"] == ScopeType.HTTP:
                raise
            # Litestar tells a socket's client nothing but this exception's code and sentence.
            raise WebSocketException(detail=refused.message, code=4000 + refused.status) from refused
        await self._app(scope, receive, send)
