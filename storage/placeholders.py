"""Placeholders for personal values: the model sees ``⟦EMAIL_1⟧``, the customer the address behind it.

The rules here hold without a model and are proven by property tests:

* what is masked can be restored exactly, brackets in the customer's own text included;
* within one thread a value has one placeholder, whatever its spelling (the first one is what is restored);
* a placeholder that nobody handed out is never restored to somebody's value;
* a streamed text restores to the same characters as the whole text, however it is cut.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

# Bounded on purpose: at most 36 characters, so that a stream never has to hold back more than that.
PLACEHOLDER = re.compile(r"⟦[A-Z_]{1,24}_[0-9]{1,9}⟧")
_UNFINISHED = re.compile(r"⟦[A-Z_]{0,25}(?:(?<=_)[0-9]{1,9})?\Z")
_KIND = re.compile(r"[A-Z_]{1,24}")
# Vault numbers start at 1: number 0 is free to spell the two brackets themselves.
_BRACKETS = {"⟦": "⟦OPEN_0⟧", "⟧": "⟦CLOSE_0⟧"}
_ESCAPE = str.maketrans(_BRACKETS)
_LITERAL = {token: bracket for bracket, token in _BRACKETS.items()}
_NEUTRAL = "[…]"
_COMPACT_KINDS = frozenset({"IBAN", "CARD", "VAT_ID"})
# "max.anna@x.at" is somebody else than "anna@x.at".
_ADDRESS_START = r"(?<![\w.+-])"
_ADDRESS = rf"{_ADDRESS_START}[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
# Shorter values (initials, house numbers) stand in too many ordinary sentences to be searched for.
_MIN_KNOWN = 3


@dataclass(frozen=True, slots=True)
class VaultEntry:
    """One value and what stands for it.

    Attributes:
        placeholder: ``⟦KIND_n⟧``, n from 1.
        kind: upper-case letters and underscores, at most 24.
        value: the value as it was first written.
        norm: its normalised form (see ``normalise``); equal forms share a placeholder.
    """

    placeholder: str
    kind: str
    value: str
    norm: str


def normalise(kind: str, value: str) -> str:
    """The form in which two spellings of one value are equal.

    PHONE becomes digits with a leading ``+`` where the number is international (``00`` counts, a bracketed
    trunk zero is dropped); IBAN, CARD and VAT_ID lose everything but letters and digits; everything else is
    case-folded with single blanks.
    """
    text = unicodedata.normalize("NFKC", value).strip()
    if kind == "PHONE":
        digits = re.sub(r"\D", "", re.sub(r"\(0\)", "", text) if text.startswith(("+", "00")) else text)
        if text.startswith("+"):
            return "+" + digits
        return "+" + digits[2:] if digits.startswith("00") else digits
    if kind in _COMPACT_KINDS:
        return re.sub(r"[\W_]", "", text).upper()
    return " ".join(text.split()).casefold()


def escape(text: str) -> str:
    """The text with its own ``⟦`` and ``⟧`` spelt as reserved placeholders: then each bracket is ours."""
    return text.translate(_ESCAPE)


def unescape(text: str) -> str:
    """The inverse of ``escape``; placeholders of values stay."""
    return PLACEHOLDER.sub(lambda match: _LITERAL.get(match[0], match[0]), text)


def _literal(entry: VaultEntry) -> str:
    return re.escape(escape(entry.value.strip()))


def neutral(_placeholder: str) -> str:
    """The word shown for a placeholder that nobody handed out."""
    return _NEUTRAL


class Vault:
    """The placeholders of one thread, in memory. Not safe for use by two tasks at once.

    Args:
        entries: what the store holds for the thread, in any order.
    """

    def __init__(self, entries: Iterable[VaultEntry] = ()) -> None:
        self.fresh: list[VaultEntry] = []
        self._by_placeholder: dict[str, VaultEntry] = {}
        self._by_norm: dict[tuple[str, str], VaultEntry] = {}
        self._last: dict[str, int] = {}
        self._known: tuple[re.Pattern[str], list[VaultEntry]] | None = None
        for entry in entries:
            self._add(entry)

    def _add(self, entry: VaultEntry) -> None:
        self._by_placeholder[entry.placeholder] = entry
        self._by_norm[entry.kind, entry.norm] = entry
        number = int(entry.placeholder.rpartition("_")[2].rstrip("⟧"))
        # The highest number, not the count: an erased entry's number must not come back with another value.
        self._last[entry.kind] = max(self._last.get(entry.kind, 0), number)
        self._known = None

    def token(self, kind: str, value: str) -> str:
        """The placeholder of a value; a new one is also put into ``fresh``.

        Raises:
            ValueError: the kind is not 1 to 24 upper-case letters and underscores.
        """
        if not _KIND.fullmatch(kind):
            raise ValueError(f"a kind is 1 to 24 upper-case letters and underscores, not {kind!r}")
        norm = normalise(kind, value)
        entry = self._by_norm.get((kind, norm))
        if entry is None:
            entry = VaultEntry(f"⟦{kind}_{self._last.get(kind, 0) + 1}⟧", kind, value, norm)
            self._add(entry)
            self.fresh.append(entry)
        return entry.placeholder

    def mark_stored(self) -> None:
        """Says that all of ``fresh`` is committed; to be called before the first model call."""
        self.fresh.clear()

    def replace_known(self, text: str) -> str:
        """Puts placeholders for every known value of at least 3 characters, longest first, in any case.

        A value inside a longer word, or inside somebody else's e-mail address, is left alone.

        Args:
            text: an escaped text (see ``escape``); placeholders in it stay as they are.
        """
        pattern, entries = self._known or self._compile()
        if not entries:
            return text

        def placeholder(match: re.Match[str]) -> str:
            return entries[match.lastindex - 1].placeholder if match.lastindex else match[0]

        return pattern.sub(placeholder, text)

    def _compile(self) -> tuple[re.Pattern[str], list[VaultEntry]]:
        known = [e for e in self._by_placeholder.values() if len(e.value.strip()) >= _MIN_KNOWN]
        # Addresses first: else the name "Anna" would be cut out of "anna.maier@example.at".
        known.sort(key=lambda entry: (entry.kind != "EMAIL", -len(entry.value)))
        addresses = [entry for entry in known if entry.kind == "EMAIL"]
        parts = [rf"{_ADDRESS_START}({_literal(entry)})(?!\w)" for entry in addresses]
        parts += [_ADDRESS, *(rf"(?<!\w)({_literal(entry)})(?!\w)" for entry in known[len(addresses) :])]
        # Ready placeholders are alternatives of their own, so that a value "EMAIL" is not found inside one.
        self._known = re.compile("|".join([*parts, PLACEHOLDER.pattern]), re.IGNORECASE), known
        return self._known

    def restore(self, text: str, unknown: Callable[[str], str] = neutral) -> str:
        """The text with each placeholder replaced by its value, in one pass.

        Args:
            text: what the model or a journal holds.
            unknown: called with each placeholder that is not of this thread; its answer is shown instead.
        """

        def value(match: re.Match[str]) -> str:
            token = match[0]
            if token in _LITERAL:
                return _LITERAL[token]
            entry = self._by_placeholder.get(token)
            return unknown(token) if entry is None else entry.value

        return PLACEHOLDER.sub(value, text)

    def restore_json(self, value: Any) -> Any:
        """The same structure with every string value restored; keys, numbers and the rest stay."""
        if isinstance(value, str):
            return self.restore(value)
        if isinstance(value, dict):
            return {key: self.restore_json(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.restore_json(item) for item in value)
        return value


class StreamRestorer:
    """Restores a text that arrives in pieces, without ever showing a part of a placeholder.

    Only the end of the text that may still become a placeholder is held back: at most 35 characters.

    Args:
        vault: the thread's placeholders.
        unknown: as in ``Vault.restore``.
    """

    def __init__(self, vault: Vault, unknown: Callable[[str], str] = neutral) -> None:
        self._vault = vault
        self._unknown = unknown
        self._held = ""

    def feed(self, chunk: str) -> str:
        """Takes the next piece and returns what may be shown now, possibly nothing."""
        text = self._held + chunk
        unfinished = _UNFINISHED.search(text)
        cut = unfinished.start() if unfinished else len(text)
        self._held = text[cut:]
        return self._vault.restore(text[:cut], self._unknown)

    def flush(self) -> str:
        """The rest, at the end of the stream."""
        rest, self._held = self._held, ""
        return self._vault.restore(rest, self._unknown)
