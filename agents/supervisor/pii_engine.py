"""The recognizers behind ``pii.Masker``, which imports this module when it is built: that takes seconds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import spacy
import stdnum.eu.vat
import stdnum.iban
import stdnum.luhn
from presidio_analyzer import AnalyzerEngine, LocalRecognizer, RecognizerRegistry, RecognizerResult
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine
from presidio_analyzer.predefined_recognizers import EmailRecognizer, PhoneRecognizer

# Recognizers are bound to a language, the numbers are not: everything is registered once, under none.
LANGUAGE = "xx"
REGIONS = ("DE", "AT", "CH", "GB", "US", "FR", "IT")
# Issuer prefixes (ISO/IEC 7812) and the lengths that the network issues.
_NETWORKS = (
    (re.compile(r"4"), {13, 16, 19}),  # Visa
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), {16}),  # Mastercard
    (re.compile(r"3[47]"), {15}),  # American Express
    (re.compile(r"3(?:0[0-5]|[689])"), {14, 16, 19}),  # Diners Club
    (re.compile(r"6011|64[4-9]|65"), {16, 19}),  # Discover
    (re.compile(r"35(?:2[89]|[3-8])"), {16, 19}),  # JCB
    (re.compile(r"5018|5020|5038|5893|6304|6759|676[1-3]"), set(range(13, 20))),  # Maestro
)
_EU = "AT|BE|BG|CY|CZ|DE|DK|EE|EL|ES|FI|FR|HR|HU|IE|IT|LT|LU|LV|MT|NL|PL|PT|RO|SE|SI|SK"


def is_card(digits: str) -> bool:
    """True for 13 to 19 digits with an issuer's prefix, that network's length and a right Luhn digit."""
    networks = (lengths for prefix, lengths in _NETWORKS if prefix.match(digits))
    return any(len(digits) in lengths for lengths in networks) and bool(stdnum.luhn.is_valid(digits))


def is_luhn(digits: str) -> bool:
    """True for 12 to 19 digits with a right Luhn digit: what a card may be when the text calls it one."""
    return 12 <= len(digits) <= 19 and bool(stdnum.luhn.is_valid(digits))


class TokenOnlyEngine(NlpEngine):
    """A tokenizer in place of a language model; without lemmas Presidio's context words would do nothing."""

    engine_name = "token_only"
    is_available = True

    def __init__(self) -> None:
        self.nlp = spacy.blank(LANGUAGE)

    def load(self) -> None:
        self.nlp = spacy.blank(LANGUAGE)

    def is_loaded(self) -> bool:
        return True

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        doc = self.nlp.make_doc(text)
        return NlpArtifacts(
            entities=[],
            tokens=doc,
            tokens_indices=[token.idx for token in doc],
            lemmas=[token.lower_ for token in doc],
            nlp_engine=self,
            language=language,
            scores=[],
        )

    def process_batch(
        self, texts: Iterable[str], language: str, batch_size: int = 1, n_process: int = 1, **kwargs: Any
    ) -> Iterator[tuple[str, NlpArtifacts]]:
        return ((text, self.process_text(text, language)) for text in texts)

    def is_stopword(self, word: str, language: str) -> bool:
        return False

    def is_punct(self, word: str, language: str) -> bool:
        return not any(character.isalnum() for character in word)

    def get_supported_entities(self) -> list[str]:
        return []

    def get_supported_languages(self) -> list[str]:
        return [LANGUAGE]


class ChecksumRecognizer(LocalRecognizer):
    """Finds numbers that prove themselves by a check digit, however they are grouped.

    A regular expression alone either stops at the first blank or swallows the next word. Here a candidate
    grows group by group from its first characters, and the longest form that the checksum accepts wins.

    Args:
        kind: the entity's name.
        start: what a number begins with.
        valid: called with the characters without separators, in upper case.
        longest: characters of the longest possible number, without separators.
    """

    def __init__(self, kind: str, start: str, valid: Callable[[str], bool], longest: int) -> None:
        super().__init__(supported_entities=[kind], supported_language=LANGUAGE)
        self._start = re.compile(rf"(?<!\w)(?:{start})", re.IGNORECASE)
        self._group = re.compile(r"[ .\-/\u00a0\u202f]?([0-9A-Za-z+*]+)")
        self._valid = valid
        self._longest = longest

    def load(self) -> None:
        """Nothing to load."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """See the base class; every result has the highest score."""
        found = ((match.start(), self._end(text, match.start())) for match in self._start.finditer(text))
        kind = self.supported_entities[0]
        return [RecognizerResult(kind, start, end, self.MAX_SCORE) for start, end in found if end]

    def _end(self, text: str, start: int) -> int:
        compact, end, position = "", 0, start
        while group := self._group.match(text, position):
            compact += group[1].upper()
            position = group.end()
            if len(compact) > self._longest:
                break
            if self._valid(compact):
                end = position
        return end


class AddressRecognizer(EmailRecognizer):
    """E-mail addresses under any top-level domain.

    The base class looks the domain up in the public suffix list, which it downloads, and lets addresses under
    a new or internal domain ("anna@firma.intern") through in clear: for masking, the shape is enough.
    """

    def validate_result(self, pattern_text: str) -> bool:
        """True when the last label is a name: "package@1.2.3" is a version."""
        return not pattern_text.rpartition(".")[2].isdigit()


class DialledRecognizer(LocalRecognizer):
    """Finds every group of 7 to 15 digits (E.164's limit) that could be dialled, valid in a country or not.

    Customers mistype, and the regions' tables miss foreign numbers: whether such a find is a phone number
    depends on the words around it, so the caller must ask for these.
    """

    def __init__(self) -> None:
        super().__init__(supported_entities=["DIALLED"], supported_language=LANGUAGE)
        self._shape = re.compile(r"(?<![\w+])\+?\(?\d(?:[ \u00a0()/.\-\u2010-\u2015]{0,3}\d){6,14}(?!\w)")

    def load(self) -> None:
        """Nothing to load."""

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: NlpArtifacts | None = None
    ) -> list[RecognizerResult]:
        """See the base class."""
        found = self._shape.finditer(text)
        return [RecognizerResult("DIALLED", match.start(), match.end(), 0.3) for match in found]


def build() -> AnalyzerEngine:
    """An analyzer for EMAIL, PHONE, IBAN, CARD and VAT_ID in any language. Needs no network.

    It also reports LUHN and DIALLED: a card or a phone number only if the words around it say so.
    """
    recognizers = [
        AddressRecognizer(supported_language=LANGUAGE, supported_entity="EMAIL"),
        PhoneRecognizer(supported_language=LANGUAGE, supported_entity="PHONE", supported_regions=REGIONS),
        ChecksumRecognizer("IBAN", r"[A-Z]{2}[0-9]{2}", stdnum.iban.is_valid, 34),
        ChecksumRecognizer("CARD", r"[2-6][0-9]{3}", is_card, 19),
        ChecksumRecognizer("LUHN", r"[0-9]{3}", is_luhn, 19),
        DialledRecognizer(),
        # In upper case only: "de 123456789" is the middle of a French or Spanish sentence.
        ChecksumRecognizer("VAT_ID", rf"(?-i:{_EU})(?=[ .-]?[0-9A-Z])", stdnum.eu.vat.is_valid, 14),
    ]
    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=[LANGUAGE])
    return AnalyzerEngine(registry=registry, nlp_engine=TokenOnlyEngine(), supported_languages=[LANGUAGE])
