"""Finds personal values in a text and puts placeholders in their place (see ``storage.placeholders``).

It works without a downloaded model, so it finds what has a shape or a checksum; ``COVERAGE`` says the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from storage.placeholders import PLACEHOLDER, Vault, escape

COVERAGE: Final[dict[str, Literal["covered", "not covered"]]] = {
    "EMAIL": "covered",
    "PHONE": "covered",
    "IBAN": "covered",
    "CARD": "covered",
    "VAT_ID": "covered",
    "PERSON": "not covered",
    "ADDRESS": "not covered",
}
WINDOW = 20_000  # characters analysed at once: the engine's time and memory grow with the text
OVERLAP = 200  # longer than any value, so that each one lies whole in some window
# What may be a number of this kind, if the words around it say so.
_MAYBE = {"LUHN": "CARD", "DIALLED": "PHONE"}
# Where two finds overlap the masked part is their union; its kind is the one that proves itself best.
_RANK = ("IBAN", "VAT_ID", "CARD", "EMAIL", "PHONE")

_ID_WORD = (
    r"order|invoice|booking|reservation|reference|ref|ticket|case|customer|client|contract|serial|article|item|sku|"
    r"tracking|shipment|parcel|bestell|auftrag|rechnung|buchung|reservierung|kunden|vertrag|vorgang|aktenzeichen|"
    r"artikel|serien|rahmen|sendung|paket|beleg|angebot|gutschein|zähler|commande|facture|réservation|dossier|"
    r"pedido|factura|reserva|ordine|fattura|prenotazione"
)
_NUMBER_WORD = r"number|nummer|numéro|número|numero|nr"
_PHONE_WORD = (
    r"tel(?:nr|efon\w*|ephone\w*|éf\w*|éph\w*)?\b|phone|mobil|móvil|cell|call|(?:ring|text)\b|fax|handy|festnetz|anruf|"
    r"ruf|rückruf|zurückruf|erreich|reach|contact|kontakt|sms\b|whatsapp|portable|appel|llam|chiam|cellulare|"
    rf"(?:{_NUMBER_WORD})\b"
)
_CARD_WORD = r"card|visa|master|karte|kredit|credit|carte|tarjeta|carta|crédit|crédito"
_CONTEXT = re.compile(
    rf"\b(?:(?P<id>(?:{_ID_WORD})\w*(?:[\s.:#-]+(?:{_NUMBER_WORD}|no|id|code)\b)?)"
    rf"|(?P<card>(?:cc\b|(?:{_CARD_WORD})\w*)(?:[\s.:#-]+(?:{_NUMBER_WORD}|no)\b)?)|(?P<phone>(?:{_PHONE_WORD})\w*))",
    re.IGNORECASE,
)
# An id word counts only when nothing but filler or other numbers stands between it and the number.
_GLUE = re.compile(
    r"(?:[\W\d_]|\b(?:is|was|are|ist|war|sind|lautet|lauten|mit|der|die|the|with|and|und|est|es|et|y|e|è|for|für|von|vom"
    r"|no|nr|id|code|number|nummer|re|in)\b)*",
    re.IGNORECASE,
)
_REACH = 48  # characters that context words are looked for in front of a number
_LOOKS_DIALLED = re.compile(r"\+|\(|0[\d\s]*[\s()/.\-]|\d{3}[ .-]\d{3}[ .-]\d{4}\Z|\d{3}[ .-]\d{7}\Z")
_SEPARATED = re.compile(r"\d[\s()/.\-\u2010-\u2015]+\(?\d")
_DATE = re.compile(
    r"(?:\d{1,2}[./-]\s?\d{1,2}[./-]\s?(?:\d{4}|\d{2})|\d{4}[-/.]\d{1,2}[-/.]\d{1,2})(?![./-]?\d)"
)
_TIMES = re.compile(r"\d{1,2}[.]?\d{2}\s?[-–]\s?\d{1,2}[.]?\d{2}\Z")
_YEARLY_ID = re.compile(r"(?:19|20)\d{2}[-/]\d+\Z")
_CURRENCY = r"(?:€|\$|£|EUR|Euro|USD|CHF|GBP)"
_PRICE_AFTER = re.compile(rf"(?:[.,]\d{{1,2}}|,-)?\s?{_CURRENCY}")
_PRICE_BEFORE = re.compile(rf"{_CURRENCY}\s?\Z")
_GLUED_PREFIX = re.compile(r"[^\W\d_][-_/]\Z|#\s?\Z")
_TRIGGER = re.compile(r"[\d@]")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A find: ``text[start:end]`` is of this kind (a key of ``COVERAGE``)."""

    start: int
    end: int
    kind: str


class Masker:
    """The detection engine. Building it imports the recognizers (2 s or more): one for each process."""

    def __init__(self) -> None:
        from agents.supervisor.pii_engine import (
            LANGUAGE,
            build,
        )  # a process that masks nothing must not pay for it

        self._language = LANGUAGE
        self._engine = build()
        self.find("+43 512 5351 and a@example.com")  # loads the tables that the first message would wait for

    def find(self, text: str) -> list[Span]:
        """The personal values of a text, in order and without overlaps.

        Args:
            text: any length; above 20,000 characters it is analysed in overlapping windows.
        """
        if not _TRIGGER.search(text):
            return []
        spans = [
            span
            for offset in range(0, max(len(text) - OVERLAP, 1), WINDOW - OVERLAP)
            for span in self._window(text, offset)
        ]
        return _union(spans)

    def mask(self, text: str, vault: Vault) -> str:
        """The text as the model may see it: brackets escaped, known and found values behind placeholders.

        Args:
            text: what the customer wrote.
            vault: the thread's placeholders; what is found for the first time is added to ``vault.fresh``.

        Returns:
            A text that ``vault.restore`` turns into the given one, except that a value met before in another
            spelling ("A@X.AT" after "a@x.at") comes back in the first one.
        """
        known = vault.replace_known(escape(text))
        # Of equal length, so that positions hold; a character over which no number and no address continues.
        hidden = PLACEHOLDER.sub(lambda match: "§" * len(match[0]), known)
        parts, end = [], 0
        for span in self.find(hidden):
            parts += [known[end : span.start], vault.token(span.kind, known[span.start : span.end])]
            end = span.end
        return "".join([*parts, known[end:]])

    def _window(self, text: str, offset: int) -> list[Span]:
        part = text[offset : offset + WINDOW]
        kinds = ["EMAIL"] if "@" in part else []
        if sum(map(str.isdigit, part)) >= 6:
            kinds += ["PHONE", "IBAN", "CARD", "VAT_ID", *_MAYBE]
        if not kinds:
            return []
        spans: list[Span] = []
        maybe: list[Span] = []
        for result in self._engine.analyze(part, self._language, entities=kinds):
            cut_left = offset > 0 and result.start == 0
            cut_right = offset + WINDOW < len(text) and result.end == len(part)
            span = Span(offset + result.start, offset + result.end, result.entity_type)
            # What touches a cut may be half a value; the neighbouring window has it whole.
            if not cut_left and not cut_right and _credible(text, span):
                (maybe if span.kind in _MAYBE else spans).append(span)
        return spans + [found for guess in maybe if (found := _completed(guess, spans))]


def _completed(guess: Span, certain: list[Span]) -> Span | None:
    """What a guess adds: a certain find knows better where the number ends, but may lack its country code."""
    kind = _MAYBE[guess.kind]
    touched = [span for span in certain if guess.start < span.end and span.start < guess.end]
    if not touched:
        return Span(guess.start, guess.end, kind)
    first = min(touched)
    return Span(guess.start, first.end, kind) if guess.start < first.start else None


def _credible(text: str, span: Span) -> bool:
    if span.kind == "CARD":
        return _context(text, span) != "id"
    if span.kind == "LUHN":
        return _context(text, span) == "card"
    return span.kind not in {"PHONE", "DIALLED"} or _is_phone(text, span)


def _is_phone(text: str, span: Span) -> bool:
    """Tells a phone number from an order number, a date or a price that would also be valid to dial."""
    value = text[span.start : span.end]
    if value.startswith("+"):
        return True
    before = text[max(0, span.start - 8) : span.start]
    if (
        _DATE.match(text, span.start)
        or _TIMES.match(value)
        or _PRICE_AFTER.match(text, span.end)
        or _PRICE_BEFORE.search(before)
        or _GLUED_PREFIX.search(before)
        or _YEARLY_ID.match(value)
    ):
        return False
    context = _context(text, span)
    if context == "phone":
        return True
    return (
        span.kind == "PHONE"
        and context != "id"
        and bool(_SEPARATED.search(value) and _LOOKS_DIALLED.match(value))
    )


def _context(text: str, span: Span) -> str | None:
    """What the nearest context word says about a number: "id", "card", "phone" or nothing."""
    begin = max(0, span.start - _REACH)
    before = text[begin : span.start]
    for match in reversed(list(_CONTEXT.finditer(before))):
        if match.lastgroup != "id" or _GLUE.fullmatch(before, match.end()):
            return match.lastgroup
    after = _CONTEXT.search(text[span.end : span.end + _REACH // 2])
    return "phone" if after and after.lastgroup == "phone" else None


def _union(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in sorted(spans):
        last = merged[-1] if merged else None
        if last is None or span.start >= last.end:
            merged.append(span)
        else:
            kind = min(last.kind, span.kind, key=_RANK.index)
            merged[-1] = Span(last.start, max(last.end, span.end), kind)
    return merged
