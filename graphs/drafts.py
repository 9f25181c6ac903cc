"""The answer while it is being written, as far as it may be shown: whole words, no citation markers, no half
placeholders.

A draft is a courtesy: it replaces "typing…", is never stored, and gives way to the checked reply.
"""

import time
from collections.abc import Awaitable, Callable

from agents.supervisor.screen_out import without_markers
from storage.placeholders import StreamRestorer, Vault

EVERY_SECONDS = 0.08


class Drafter:
    """Collects a model's pieces of text and shows the customer what is fit to be shown, not more than a dozen
    times a second.
    """

    def __init__(
        self,
        vault: Vault,
        show: Callable[[str], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._restorer = StreamRestorer(vault)
        self._show = show
        self._clock = clock
        self._text = ""
        self._shown = ""
        self._next_at = 0.0

    async def feed(self, delta: str) -> None:
        """Take the next piece."""
        self._text += self._restorer.feed(delta)
        now = self._clock()
        draft = without_markers(self._text)
        if draft and draft != self._shown and now >= self._next_at:
            self._shown, self._next_at = draft, now + EVERY_SECONDS
            await self._show(draft)
