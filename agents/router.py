"""Step 5 of a message's path (a): who answers."""

import json
import re
from collections.abc import Sequence

from langchain_core.messages import BaseMessage

from agents.catalog import FALLBACK_AGENT, Snapshot
from agents.models import ModelGateway, Task
from agents.thinking import think
from storage.journal import TurnJournal

STICKY_BELOW = 0.5  # a less certain route does not take a conversation away from the specialist who has it


async def route(
    gateway: ModelGateway,
    journal: TurnJournal,
    snapshot: Snapshot,
    conversation: Sequence[BaseMessage],
    *,
    tenant_name: str,
    languages: Sequence[str],
    language: str,
    current: str | None,
) -> tuple[str, bool]:
    """The specialist for a conversation: (name, whether a stand-in model chose).

    Args:
        conversation: with placeholders, the customer's last message at the end.
        current: who answered last.
    """
    if len(snapshot.agents) == 1:
        return next(iter(snapshot.agents)), False
    thought = await think(
        gateway,
        journal,
        Task("route", language=language),
        snapshot.router,
        {
            "tenant_name": tenant_name,
            "agents": "\n".join(f"- {spec.name}: {spec.routing}" for spec in snapshot.agents.values()),
            "languages": ", ".join(languages),
        },
        conversation,
        tier="fast",
    )
    name, confidence = _parse(str(thought.message.text))
    if name not in snapshot.agents:
        name, confidence = current or FALLBACK_AGENT, 0.0
    if confidence < STICKY_BELOW and current in snapshot.agents:
        name = current
    chosen = name if name is not None and name in snapshot.agents else FALLBACK_AGENT
    journal.note("route", {"agent": chosen, "confidence": confidence, "before": current})
    return chosen, thought.reduced


def _parse(text: str) -> tuple[str | None, float]:
    """Name and confidence out of a model's answer; (None, 0) where it is not what was asked for."""
    match = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        answer = json.loads(match[0]) if match else {}
        return str(answer["agent"]), min(max(float(answer["confidence"]), 0.0), 1.0)
    except (ValueError, KeyError, TypeError):
        return None, 0.0
