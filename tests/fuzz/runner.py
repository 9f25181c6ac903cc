"""One run of schemathesis as one identity, and what it found."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from server.openapi import describe
from tests.fuzz.identities import WIDE, Credentials, Filled, Served, cloned
from tests.support.servers import Addresses, settings_for

PHASES = ("examples", "coverage", "fuzzing", "stateful")
# Beyond what schemathesis expects by itself.
CHECKS: dict[str, Any] = {
    # 503: signing in with another provider asks that provider, and there is none here; ``Outcome.clean`` lets no other address say so.
    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
    # 422 is what is well formed and yet refused for a reason that no schema can say: a time zone that does not exist, a password that is
    # in the list of common ones, a scope that the caller does not have. 400 stays unexpected: it would be a schema that promises too much.
    # 412: If-Match is generated, and nobody has read that version.
    "positive_data_acceptance": {
        "expected-statuses": ["2xx", "3xx", "401", "403", "404", "409", "412", "422", "429", "503"]
    },
    # 412: as above. 413: generated text may be longer than a route takes. 414, 431: so may addresses and headers be.
    "negative_data_rejection": {
        "expected-statuses": ["400", "401", "403", "404", "405", "409", "412", "413", "414", "415", "422", "429", "431"]
    },
}  # fmt: skip


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        cases: requests that were sent and judged, by phase.
        statuses: how often which status was answered.
        broken: how often which operation answered with a server's error, but for single sign-on's 503.
        failures: what failed: the operation, the check's words, and how to send it again.
        errors: what schemathesis itself could not do.
    """

    identity: str
    cases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.failures or self.errors or self.broken)


@contextmanager
def wide_limits() -> Iterator[None]:
    """Rate limits as an operator can set them, so that the API answers instead of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATE_LIMITS", WIDE)
        yield


def fuzz(
    addresses: Addresses,
    world: Filled,
    identity: str,
    *,
    max_examples: int,
    seconds: int | None = None,
    phases: tuple[str, ...] = PHASES,
    seed: int = 1,
    include: str | None = None,
) -> Outcome:
    """Fuzz a server over a copy of the world.

    Args:
        max_examples: of the fuzzing phase, for each operation.
        seconds: when it is over, whatever is left.
        phases: of schemathesis.
        include: only operations whose address has this regular expression in it.
    """
    with (
        wide_limits(),
        cloned(addresses, world.database) as database,
        Served(settings_for(addresses, database)) as served,
    ):
        schema: Any = schemathesis.openapi.from_dict(
            describe(served.app), config=_config(served.url, max_examples, seconds, phases, seed)
        )
        if include is not None:
            schema = schema.include(path_regex=include)
        credentials = Credentials(served, world, identity)
        _authenticate(schema, credentials)
        return _collect(identity, from_schema(schema).execute())


def _config(
    url: str, max_examples: int, seconds: int | None, phases: tuple[str, ...], seed: int
) -> SchemathesisConfig:
    settings: dict[str, Any] = {
        "base-url": url,
        "seed": seed,
        "workers": 1,
        "continue-on-failure": True,
        "request-timeout": 60,
        "cache": {"enabled": False},
        "generation": {
            "mode": "all",
            "max-examples": max_examples,
            "no-shrink": True,
            "deterministic": True,
            "database": "none",
        },
        "phases": {name: {"enabled": name in phases} for name in PHASES},
        "checks": {"enabled": True, **CHECKS},
        "output": {"truncation": {"enabled": True}},
    }
    if seconds is not None:
        settings["max-time"] = seconds
    return SchemathesisConfig.from_dict(settings)


def _authenticate(schema: Any, credentials: Credentials) -> None:
    """Send the identity's header with each case that does not bring one of its own, and make a new one where it was refused."""
    if not credentials.headers:
        return

    class Provider:
        def get(self, _case: Any, _context: Any) -> str:
            return credentials.headers["authorization"]

        def set(self, case: Any, data: str, _context: Any) -> None:
            case.headers = {**(case.headers or {}), "Authorization": data}

    schema.auth(refresh_interval=None)(Provider)

    def after_call(_context: Any, _case: Any, response: Any) -> None:
        if response.status_code == 401:
            credentials.drop(response.request.headers.get("Authorization"))

    schema.hook(after_call)


def _collect(identity: str, stream: Any) -> Outcome:
    outcome = Outcome(identity)
    for event in stream:
        if isinstance(event, events.ScenarioFinished):
            _count(outcome, event)
        elif isinstance(event, events.NonFatalError):
            outcome.errors.append(f"{event.label}: {event.info.format()[:2000]}")
        elif isinstance(event, events.FatalError):
            outcome.errors.append(repr(event.exception))
    return outcome


def _count(outcome: Outcome, event: events.ScenarioFinished) -> None:
    recorder = event.recorder
    for interaction in recorder.interactions.values():
        if interaction.response is not None:
            outcome.cases[event.phase.name.lower()] += 1
            status = interaction.response.status_code
            outcome.statuses[status] += 1
            if status >= 500 and not (status == 503 and "/auth/sso/" in recorder.label):
                outcome.broken[f"{recorder.label}: {status}"] += 1
    for nodes in recorder.checks.values():
        for node in nodes:
            if node.status != Status.SUCCESS and node.failure_info is not None:
                info = node.failure_info
                words = f"{info.failure.title}: {info.failure.message[:1500]}\n{info.code_sample[:1500]}"
                outcome.failures.append(f"{recorder.label} | {event.phase.name} | {words}")
            elif node.status == Status.ERROR:
                outcome.errors.append(f"{recorder.label}: the check {node.name} broke")
