"""Step 5 of a message's path (c): what comes in. From here on there are placeholders instead of personal
data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agents.language import LanguageGuesser
from agents.supervisor.pii import Masker
from storage.placeholders import Vault


@dataclass(frozen=True)
class Screened:
    """The turn's text as models, state, journal and logs may have it."""

    text: str
    language: str


def screen_in(
    texts: Sequence[str], masker: Masker, vault: Vault, guesser: LanguageGuesser, known_language: str | None
) -> Screened:
    """Mask the messages of a turn and tell their language.

    Args:
        texts: the customer's messages, in order.
        vault: of the thread; new values get a placeholder in it, to be stored before a model is asked.
        known_language: the thread's language so far.
    """
    text = masker.mask("\n\n".join(texts), vault)
    language, _ = guesser.guess(text, known_language)
    return Screened(text, language)
