"""Step 6 of a message's path: carry out a tool call, once.

What cuts across all tools is here and in agents/toolbox.py, never in a tool: rights, approval, personal data,
time limit, size limit, audit, and the journal: the effect of a tool and its journal row commit together, so a
repeat returns the stored result.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from storage.journal import TurnJournal
from storage.repositories import audit
from storage.sql import Session
from storage.tenancy import TenantContext
from tools.sdk.context import Resources, ToolContext, shared
from tools.sdk.errors import ToolError
from tools.sdk.fields import Privacy, masked, personal_fields, restored
from tools.sdk.plugin import Tool
from tools.sdk.registry import Registry

MAX_RESULT_CHARACTERS = 24_000


@dataclass(frozen=True)
class Conversation:
    """On whose behalf and in which conversation tools are called; from the server, never from the model."""

    tenant: TenantContext
    thread_id: UUID
    turn_id: UUID
    now: datetime
    language: str


class ToolRunner:
    """Runs the tool calls of one turn."""

    def __init__(
        self,
        registry: Registry,
        journal: TurnJournal,
        resources: Resources,
        privacy: Privacy,
        conversation: Conversation,
    ) -> None:
        self._registry = registry
        self._journal = journal
        self._resources = resources
        self._privacy = privacy
        self._conversation = conversation

    async def call(
        self, name: str, arguments: dict[str, Any], *, allowed: frozenset[str], labels: int = 0
    ) -> dict[str, Any]:
        """Carry out one call and return its result as JSON for the model.

        Args:
            name: what the model called.
            arguments: as the model gave them, with placeholders.
            allowed: names that this agent has been given.
            labels: see ToolContext.

        Returns:
            The tool's masked result, or ``{"error": sentence}`` where the call was refused; nothing was
            changed then.

        Raises:
            LeaseLost: somebody else works this thread now.
            Exception: the tool itself broke; the turn is tried again later.
        """
        request = {"arguments": arguments, "labels": labels}
        try:
            tool = self._permitted(name, allowed)
            values = self._validated(tool, arguments)
            run = partial(self._run, tool, values, labels)
            if tool.entry.risk == "read":
                return await self._journal.observe(
                    name, request, lambda: run(partial(self._resources.database.tenant_session, self._tenant))
                )
            return await self._journal.effect(name, request, lambda session: self._act(tool, run, session))
        except ToolError as error:
            refusal = {"error": self._privacy.known(str(error))}
            return await self._journal.observe(name, request, partial(_already, refusal))

    @property
    def _tenant(self) -> TenantContext:
        return self._conversation.tenant

    def _permitted(self, name: str, allowed: frozenset[str]) -> Tool:
        tool = self._registry.tools.get(name)
        if tool is None or name not in allowed:
            raise ToolError(f"There is no tool {name!r} here. Tools: {', '.join(sorted(allowed)) or 'none'}.")
        if tool.entry.scope not in self._tenant.scopes:
            raise ToolError(f"This conversation may not use {name}.")
        if tool.entry.approval != "none" or tool.entry.risk in ("external", "money"):
            raise ToolError(
                f"{name} needs a person's approval. Tell the customer that a colleague will take care of it."
            )
        return tool

    def _validated(self, tool: Tool, arguments: dict[str, Any]) -> Any:
        if "\\u0000" in json.dumps(arguments):  # PostgreSQL cannot store it, and no person typed it
            raise ToolError(f"{tool.name} was called with a NUL character. Leave it out.")
        try:
            return tool.args.model_validate(restored(tool.args, arguments, self._privacy))
        except ValidationError as error:
            # Field names and reasons only: the input itself may be personal data.
            reasons = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}" for item in error.errors()
            )
            raise ToolError(f"{tool.name} was called with wrong arguments: {reasons}") from error

    async def _act(self, tool: Tool, run: Callable[..., Any], session: Session) -> dict[str, Any]:
        result: dict[str, Any] = await run(partial(shared, session))
        await audit.record(
            session,
            self._tenant,
            tool.name,
            "thread",
            self._conversation.thread_id,
            turn=str(self._conversation.turn_id),
        )
        return result

    async def _run(
        self,
        tool: Tool,
        values: Any,
        labels: int,
        session: Callable[[], AbstractAsyncContextManager[Session]],
    ) -> dict[str, Any]:
        context = ToolContext(
            tenant=self._tenant,
            thread_id=self._conversation.thread_id,
            turn_id=self._conversation.turn_id,
            now=self._conversation.now,
            step=f"{self._conversation.turn_id}:{self._journal.place}",
            labels=labels,
            language=self._conversation.language,
            resources=self._resources,
            session=session,
        )
        try:
            async with asyncio.timeout(tool.entry.timeout):
                out = await tool.run(context, values)
        except TimeoutError as error:
            raise ToolError(
                f"{tool.name} took longer than {tool.entry.timeout:.0f} s. Try once more or call a person."
            ) from error
        if tool.entry.risk == "read" and (seen := personal_fields(out)):
            # The model gets placeholders, but the tool has looked: that leaves its row like anybody's look.
            async with session() as looking:
                await audit.record(
                    looking,
                    self._tenant,
                    f"{tool.name}.read",
                    "thread",
                    self._conversation.thread_id,
                    turn=str(self._conversation.turn_id),
                    fields=seen,
                )
        result: dict[str, Any] = masked(out, self._privacy)
        if len(json.dumps(result, ensure_ascii=False)) > MAX_RESULT_CHARACTERS:
            raise ToolError(f"The result of {tool.name} is too long. Ask for less.")
        return result


async def _already(result: dict[str, Any]) -> dict[str, Any]:
    return result
