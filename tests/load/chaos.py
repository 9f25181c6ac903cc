"""`make chaos`: thousands of messages while workers, Redis and PostgreSQL are killed at random, and then the
count: nothing lost, nothing extra, everything in order.
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from server.channels.widget.send import room
from server.deps import Parts, build_parts
from server.settings import ServerSettings
from tests.load.arena import Arena, arena
from tests.load.figures import figure, write_figures
from tests.load.verdict import Verdict, judge, open_work
from tests.sandbox.openai import Fault, OpenAISandbox, Reply, ToolCall
from tests.support.servers import TEMPLATE, settings_for
from tests.support.world import TestTenant, Visitor, make_tenant, make_visitor

ROUTE = json.dumps({"agent": "sales", "confidence": 0.9, "language": "en"})
_NUMBER = re.compile(r"message (\d+) of thread (\d+)")
SHARES = {"worker": 0.6, "redis": 0.2, "postgres": 0.2}


@dataclass(frozen=True)
class Plan:
    """How much of it.

    Attributes:
        pace: messages a second, all threads together.
        accept: seconds within which all must be accepted.
        rest: seconds within which everything must come to rest after the last message.
    """

    messages: int = 2000
    threads: int = 50
    kills: int = 60
    seed: int = 1
    workers: int = 2
    pace: float = 10.0
    accept: float = 420.0
    rest: float = 180.0


@dataclass
class Score:
    """What was counted on the way."""

    accepted: dict[tuple[UUID, int], UUID] = field(default_factory=dict)
    deliveries: int = 0
    retries: int = 0
    announced: int = 0


class Model:
    """Answers with the number that it was asked about; makes a lead now and then, by chance: asked again, it
    would decide otherwise.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._numbers = itertools.count(1)

    def __call__(self, body: dict[str, Any]) -> Reply:
        if not body.get("tools"):
            return Reply(text=ROUTE)
        last = body["messages"][-1]
        if last["role"] != "tool" and self._chance.random() < 0.2:
            subject = f"bike offer {next(self._numbers)}"
            return Reply(
                tool_calls=(ToolCall("crm_create_lead", {"subject": subject, "email": "⟦EMAIL_1⟧"}),)
            )
        asked = next(str(item["content"]) for item in reversed(body["messages"]) if item["role"] == "user")
        number, thread = _NUMBER.findall(asked)[-1]
        return Reply(text=f"Re {number} of {thread}, answer {next(self._numbers)}")


async def produce(
    visitor: Visitor, thread: int, plan: Plan, count: int, score: Score, chance: random.Random
) -> None:
    """Write a thread's messages in order, each until it is accepted; some are delivered twice at once."""
    for number in range(1, count + 1):
        await asyncio.sleep(chance.uniform(0, 2 * plan.threads / plan.pace))
        body = f"This is message {number} of thread {thread}, I am visitor{thread}@example.org"
        copies = 2 if chance.random() < 0.1 else 1
        while (visitor.thread_id, number) not in score.accepted:
            score.deliveries += copies
            deliveries = (visitor.write(body, f"{thread}-{number}") for _ in range(copies))
            for outcome in await asyncio.gather(*deliveries, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    score.retries += 1
                    await asyncio.sleep(chance.uniform(0.02, 0.2))
                else:
                    known = score.accepted.setdefault((visitor.thread_id, number), outcome.message_id)
                    assert known == outcome.message_id, "the same message was stored twice"


async def monkey(plan: Plan, here: Arena, score: Score, chance: random.Random) -> None:
    """Kill at random, spread over the run."""
    kinds = [kind for kind, share in SHARES.items() for _ in range(max(1, round(plan.kills * share)))]
    kinds += ["worker"] * (plan.kills - len(kinds))
    chance.shuffle(kinds)
    for turn, kind in enumerate(kinds, 1):
        while len(score.accepted) < plan.messages * turn / (len(kinds) + 1):  # a figure grows
            await asyncio.sleep(0.02)
        await asyncio.sleep(chance.uniform(0, 0.5))
        await here.kill(kind, chance)


async def show(plan: Plan, here: Arena, score: Score, parts: Parts, tenant: TestTenant) -> None:
    """A progress bar for each of: accepted, answered, killed."""
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress:
        bars = [progress.add_task("accepted", total=plan.messages)]
        bars += [
            progress.add_task("settled", total=plan.messages),
            progress.add_task("kills", total=plan.kills),
        ]
        while True:
            settled = 0
            with suppress(Exception):  # PostgreSQL may be dead at the moment; the next look will tell
                settled = len(score.accepted) - await open_work(parts, tenant)
            progress.update(bars[0], completed=len(score.accepted))
            progress.update(bars[1], completed=max(settled, int(progress.tasks[1].completed)))
            progress.update(bars[2], completed=here.killed.total())
            await asyncio.sleep(0.5)


async def at_rest(parts: Parts, tenant: TestTenant, seconds: float) -> bool:
    """Wait until nothing is open; False where it did not come to rest in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(Exception):  # a server that was killed last may still be starting
            if await open_work(parts, tenant) == 0:
                return True
        await asyncio.sleep(0.2)
    return False


async def fight(plan: Plan, here: Arena, *, bars: bool) -> tuple[Score, Verdict]:
    """Produce, kill, wait for rest, count."""
    chance = random.Random(plan.seed)
    here.sandbox.default(Model(random.Random(plan.seed + 1)))
    here.sandbox.fault(
        *(Fault("stall_before", seconds=chance.uniform(0.005, 0.03)) for _ in range(plan.messages * 8))
    )
    parts = build_parts(
        "chaos", ServerSettings(), settings_for(here.addresses, TEMPLATE, database_pool_size=20)
    )
    score, beside = Score(), []
    try:
        tenant = await make_tenant(parts, "acme")
        visitors = [await make_visitor(parts, tenant) for _ in range(plan.threads)]

        async def hear(event: dict[str, Any]) -> None:
            score.announced += event["t"] == "new"

        for visitor in visitors:
            await parts.bus.subscribe(room(tenant.context, visitor.thread_id), hear)
        beside.append(asyncio.create_task(here.keep()))
        if bars:
            beside.append(asyncio.create_task(show(plan, here, score, parts, tenant)))
        shares = [
            plan.messages // plan.threads + (n < plan.messages % plan.threads) for n in range(plan.threads)
        ]
        async with asyncio.timeout(plan.accept), asyncio.TaskGroup() as group:
            group.create_task(monkey(plan, here, score, chance))
            for thread, (visitor, count) in enumerate(zip(visitors, shares, strict=True), 1):
                own = random.Random(f"{plan.seed}:{thread}")
                group.create_task(produce(visitor, thread, plan, count, score, own))
        rested = await at_rest(parts, tenant, plan.rest)
        # Pooled connections that the last kill of PostgreSQL has cut must not take part in the count.
        await parts.database.aclose()
        return score, await judge(parts, tenant, score.accepted, rested=rested)
    finally:
        for task in beside:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await parts.aclose()


def _notable(line: str) -> str:
    """A worker's log line in short, if it is a warning or an error."""
    with suppress(ValueError):
        entry = json.loads(line)
        if entry["level"] in ("warning", "error"):
            lines = [part for part in entry.get("exception", "").splitlines() if part[:1].isalpha()]
            more = lines[-1][:120] if lines else entry.get("exit_code", entry.get("error", ""))
            return f"{entry['event']} {more}"
    return ""


def run(plan: Plan, *, bars: bool = False) -> tuple[Verdict, list[dict[str, Any]], Counter[str]]:
    """The whole run: (what was found, figures, complaints in the workers' logs). Call from the main thread."""
    began = time.monotonic()
    with arena(plan.workers, OpenAISandbox()) as here:
        score, verdict = asyncio.run(fight(plan, here, bars=bars))
        errors = Counter(said for line in here.logs() if (said := _notable(line)))
        killed = dict(here.killed)
    figures = [figure(f"chaos: {name}", value, unit, n) for name, value, unit, n in (
        ("wall time", time.monotonic() - began, "s", 1),
        *((f"kills of {kind}", number, "kills", sum(killed.values())) for kind, number in sorted(killed.items())),
        ("deliveries", score.deliveries, "deliveries", plan.messages),
        ("deliveries that failed and were repeated", score.retries, "deliveries", score.deliveries),
        ("announcements on the event bus", score.announced, "events", verdict.replies),
        *((name, value, unit, n) for name, value, unit, n in verdict.counts()),
    )]  # fmt: skip
    return verdict, figures, errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where anything was lost, doubled or out of order."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("messages", 2000), ("threads", 50), ("kills", 60)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    plan = Plan(**vars(parser.parse_args(arguments)))
    say = Console().print
    say(f"chaos: {plan}")
    verdict, figures, errors = run(plan, bars=True)
    write_figures("chaos", figures)
    for text, number in errors.most_common(20):
        say(f"{number:5} times in the workers' logs: {text}", markup=False)
    for text, number in verdict.failures.items():
        say(f"{number:5} messages failed, at first or for good: {text}", markup=False)
    for problem in verdict.problems:
        say(f"VIOLATION {problem}")
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
