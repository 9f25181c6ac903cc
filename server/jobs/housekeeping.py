"""What has to be done now and then, by any worker: twice does no harm."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from storage.tenancy import is_connection_loss

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Chore:
    """Something to be done every so many seconds; the first time after a fifth of that."""

    name: str
    seconds: float
    work: Callable[[], Awaitable[object]]


async def keep_house(chores: list[Chore]) -> None:
    """Do all chores until cancelled; one that fails is logged and comes again."""
    async with asyncio.TaskGroup() as tasks:
        for chore in chores:
            tasks.create_task(_repeat(chore), name=f"chore:{chore.name}")


async def _repeat(chore: Chore) -> None:
    await asyncio.sleep(chore.seconds / 5)
    while True:
        try:
            log.info("chore_done", chore=chore.name, result=str(await chore.work())[:200])
        except Exception as error:
            if not is_connection_loss(error):
                log.exception("chore_failed", chore=chore.name)
        await asyncio.sleep(chore.seconds)
