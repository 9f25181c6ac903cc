"""Step 5 of a message's path (b): one thought of a specialist: an answer, or calls of tools."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from langchain_core.messages import BaseMessage

from agents.models import ModelGateway, Task
from agents.spec import AgentSpec
from agents.thinking import Thought, think
from agents.toolbox import specs_for
from storage.journal import TurnJournal
from tools.sdk.registry import Registry

LANGUAGE_NAMES = {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian"}


async def consider(
    agent: AgentSpec,
    gateway: ModelGateway,
    journal: TurnJournal,
    registry: Registry,
    conversation: Sequence[BaseMessage],
    *,
    tenant_name: str,
    language: str,
    now: datetime,
    time_zone: str,
    on_delta: Callable[[str], Awaitable[None]] | None = None,
) -> Thought:
    """Let the specialist think once.

    Args:
        conversation: with placeholders; the turn's tool calls and results at its end.
        now: the turn's time; told to the model as the tenant's date.
    """
    inputs = {
        "tenant_name": tenant_name,
        "language_name": LANGUAGE_NAMES.get(language, language),
        "today": now.astimezone(ZoneInfo(time_zone)).date().isoformat(),
    }
    return await think(
        gateway,
        journal,
        Task("answer", agent=agent.name, language=language),
        agent.prompt,
        inputs,
        conversation,
        tools=specs_for(agent, registry),
        tier=agent.tier,
        on_delta=on_delta,
    )
