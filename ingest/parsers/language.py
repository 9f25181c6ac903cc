"""Which language a document is written in: it picks the stemmer of the keyword index."""

from __future__ import annotations

import re

LANGUAGES = ("en", "de", "fr", "es", "it")

# A few sentences decide as well as a book, and cost less.
_SAMPLE = 20_000
_MIN_LETTERS = 20
_MIN_PROBABILITY = 0.8


def identify(text: str) -> str | None:
    """One of LANGUAGES, or None for too little text or no clear winner.

    Imports its model (1 s, 100 MB), so it runs in the parser's child process.
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    words = " ".join(re.findall(r"[^\W\d_]+", text[:_SAMPLE]))
    if len(words) < _MIN_LETTERS:
        return None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    language, probability = identifier.classify(words)
    return str(language) if probability >= _MIN_PROBABILITY else None
