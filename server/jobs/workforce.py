"""Keeps a worker's tasks: one for each key at a time, not more than a number at once, and an orderly end."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog

log = structlog.get_logger(__name__)

Key = tuple[Any, ...]
REMEMBERED = 5_000


class Workforce:
    """Runs work that may be asked for any number of times.

    Asking again while it runs makes it run once more afterwards: what came in meanwhile is seen.
    """

    def __init__(self, limit: int) -> None:
        self._slots = asyncio.Semaphore(limit)
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()
        self._closing = False
        self._begun: OrderedDict[Key, datetime] = OrderedDict()

    def begun_since(self, key: Key, moment: datetime) -> bool:
        """Whether work under this key was begun after a moment (UTC).

        Clocks of two machines may differ; the worst that comes of it is a second's wait for the sweep.
        """
        begun = self._begun.get(key)
        return begun is not None and begun >= moment

    def ask(self, key: Key, work: Callable[[], Awaitable[None]]) -> None:
        """Have ``work`` done under this key, now or after the run that is under way."""
        if self._closing:
            return
        if key in self._running:
            self._again.add(key)
            return
        self._running[key] = asyncio.create_task(self._run(key, work), name=":".join(map(str, key)))

    def busy(self, key: Key) -> bool:
        return key in self._running

    async def _run(self, key: Key, work: Callable[[], Awaitable[None]]) -> None:
        try:
            while True:
                self._again.discard(key)
                async with self._slots:
                    self._begun[key] = datetime.now(UTC)
                    self._begun.move_to_end(key)
                    if len(self._begun) > REMEMBERED:
                        self._begun.popitem(last=False)
                    await work()
                if key not in self._again or self._closing:
                    return
        except Exception:
            log.exception("job_failed", job=key[0])  # the row is still there; the sweep asks again
        finally:
            del self._running[key]

    async def aclose(self, grace: float) -> None:
        """Start nothing more, let what runs finish for ``grace`` seconds, then cancel it."""
        self._closing = True
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=grace)
        for task in list(self._running.values()):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
