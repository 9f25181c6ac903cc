"""Kills a worker with -9 at a chosen place of a message's path. The product knows nothing of it: the place is
a function of the product, wrapped from outside in the process that is to die.
"""

import importlib
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn


@dataclass(frozen=True)
class Place:
    """Where to die: before or after the n-th call of a coroutine function.

    Attributes:
        target: ``module:name`` or ``module:Class.name``; the module is the one that looks the name up.
        received: a model's answer is in the process and not in the journal; it has to be asked again.
    """

    when: Literal["before", "after"]
    target: str
    nth: int = 1
    received: bool = False


# In the order of the path. An append of steps is: router, specialist, tool, specialist, the turn's end.
PLACES = {
    "claim-uncommitted": Place("after", "storage.repositories.claims:claim"),
    "claim-committed": Place("before", "server.jobs.inbox:InboxJob._work"),
    "vault-uncommitted": Place("after", "storage.repositories.turns:add_vault", 1, received=True),
    "router-answered": Place("after", "agents.models:ModelGateway.complete", 1, received=True),
    "router-journalled": Place("after", "storage.journal:TurnJournal.model", 1),
    "specialist-answered": Place("after", "agents.models:ModelGateway.complete", 2, received=True),
    "specialist-row-uncommitted": Place("after", "storage.repositories.turns:append_steps", 2, received=True),
    "specialist-journalled": Place("after", "storage.journal:TurnJournal.model", 2),
    "lead-uncommitted": Place("after", "tools.crm.repository:add_lead"),
    "lead-and-its-row-uncommitted": Place("after", "storage.repositories.turns:append_steps", 3),
    "lead-committed": Place("after", "storage.journal:TurnJournal.effect"),
    "second-answered": Place("after", "agents.models:ModelGateway.complete", 3, received=True),
    "second-journalled": Place("after", "storage.journal:TurnJournal.model", 3),
    "checkpoint-unwritten": Place("before", "graphs.checkpoints:TenantSaver.aput"),
    "checkpoint-written": Place("after", "graphs.runner:ConversationRunner.run"),
    "reply-uncommitted": Place("after", "storage.repositories.inbox:answer"),
    "reply-committed": Place("before", "server.jobs.outbox:OutboxJob.send_now"),
    "sent-unmarked": Place("after", "server.channels.widget.send:WidgetSender.send"),
    "mark-uncommitted": Place("after", "storage.repositories.outbox:mark_sent"),
    "sent-and-marked": Place("after", "server.jobs.outbox:OutboxJob.send_now"),
}


def arm(place: Place, marker: Path) -> None:
    """Make this process die at the place, once; ``marker`` then says that it did."""
    module_name, _, path = place.target.partition(":")
    owner: Any = importlib.import_module(module_name)
    *holders, name = path.split(".")
    for holder in holders:
        owner = getattr(owner, holder)
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)
    calls = 0

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        hit = calls == place.nth
        if hit and place.when == "before":
            _die(marker)
        result = await original(*args, **kwargs)
        if hit:
            _die(marker)
        return result

    setattr(owner, name, wrapped)


def _die(marker: Path) -> NoReturn:
    marker.touch(exist_ok=False)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive after SIGKILL")
