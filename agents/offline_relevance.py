"""Which sentences answer a question: by the question's own rare words, and by what kind of figure it asks for."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from spacy.util import get_lang_class

# "e-bike" and "E-Mail" are one word; the name of an address says nothing about what it is for
ADDRESS = re.compile(r"\S+@\S+")
WORD = re.compile(r"\b[^\W\d_]-[^\W\d_]+|[^\W\d_]+(?:['’][^\W\d_]+)?|\d+(?:[.,:]\d+)*")
# How alike two words are: the same, inflected, or one a part of the other (as in German compounds).
SAME, INFLECTED, PART = 1.0, 0.9, 0.7
SHORTEST, ENDING, STEM, PART_LENGTH = 3, 3, 5, 4
# A stop word tells little, yet "bis" and "ab" tell something.
STOP_WEIGHT = 0.1
# A capital inside a sentence marks a name, and in German a noun: what the question is about.
NAMED_WEIGHT = 2.0
NAMED = re.compile(r"(?<=[^.!?:\s\"„“]\s)[A-ZÄÖÜ][^\W\d_]+")
# What stands in the heading counts less than what stands in the sentence, and what stands beside it less again.
HEADING_SHARE, BESIDE_SHARE = 0.7, 0.35

KINDS = {
    "price": r"[€$£]|\b(?:euros?|eur|usd|chf|dollars?|pounds?|franken|kostenlos|gratis|free of charge)\b|\d\s*%",
    "time": r"\d{1,2}[:.]\d{2}\b|\d\s*(?:uhr|am|pm|o'clock)\b|\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b"
    r"|\b(?:mon|diens|donners|frei|sams|sonn)tags?\b|\bmittwochs?\b",
    "duration": r"\b(?:\d+|one|two|three|four|five|six|seven|ten|twelve|zwei|drei|vier|fünf|sechs|sieben|zehn|zwölf|eine?[nr]?)"
    r"\s(?:\w+\s)?(?:minute|hour|day|week|month|year|stunde|tag|werktag|woche|monat|jahr)\w*",
    "count": r"\d|\b(?:one|two|three|four|five|six|seven|ten|twelve|zwei|drei|vier|fünf|sechs|sieben|zehn|zwölf)\b",
    "address": r"\+?\d[\d /]{6,}\d|\S@\S|⟦(?:PHONE|EMAIL)_\d+⟧",
}
FIGURES = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in KINDS.items()}


def words(text: str) -> list[str]:
    """The words and numbers, case folded, without accents: "Räder" is "rader" and so near to "Rad"."""
    return [
        "".join(c for c in unicodedata.normalize("NFKD", word.casefold()) if c.isalnum() or c in ".,:")
        for word in WORD.findall(ADDRESS.sub(" ", text))
    ]


@lru_cache(maxsize=16)
def stop_words(language: str) -> frozenset[str]:
    """A language's words without meaning of their own; empty for a language that nobody has listed."""
    try:
        listed: Iterable[str] = get_lang_class(language).Defaults.stop_words
    except ImportError:
        return frozenset()
    return frozenset(folded for word in listed for folded in words(word))


@lru_cache(maxsize=50_000)
def kinship(one: str, other: str) -> float:
    """How likely two words are forms of one, 0 to 1: "Leasingrad" and "Leasing", "hire" and "hired"."""
    if one == other:
        return SAME
    short, long = sorted((one, other), key=len)
    if not short.isalpha() or not long.isalpha():
        return 0.0
    common = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    same_stem = common == len(short) or (common >= STEM and common >= len(short) - ENDING)
    if common >= SHORTEST and same_stem and len(long) - common <= ENDING:
        return INFLECTED
    if len(short) >= PART_LENGTH and (long.startswith(short) or long.endswith(short)):
        return PART
    return 0.0


@dataclass(frozen=True)
class Asked:
    """A question as words with weights; `kinds` are the figures it asks for."""

    weights: Mapping[str, float]
    stops: frozenset[str]
    kinds: frozenset[str]

    @classmethod
    def read(
        cls, question: str, language: str, cues: Mapping[str, Sequence[str]], texts: Sequence[str]
    ) -> "Asked":
        """Weigh the question's words by how rare they are in `texts`, from which the answer is to be taken.

        Args:
            cues: kind of figure -> words that ask for one.
        """
        plain = f" {' '.join(words(question))} "
        found = [
            (kind, cue)
            for kind, listed in cues.items()
            for cue in (" ".join(words(each)) for each in listed)
            if f" {cue} " in plain
        ]
        # a word that asks for a price is not what the question is about
        asking = {word for _, cue in found for word in cue.split()}
        stops = stop_words(language) | asking
        named = {word for match in NAMED.findall(question) for word in words(match)}
        held = Counter(word for text in texts for word in set(words(text)))
        weights = {}
        for word in dict.fromkeys(words(question)):
            if word in asking:
                continue
            times = sum(count for other, count in held.items() if kinship(word, other) >= INFLECTED)
            rarity = math.log(1 + len(texts) / (1 + times))
            share = STOP_WEIGHT if word in stops or len(word) == 1 else NAMED_WEIGHT if word in named else 1.0
            weights[word] = rarity * share
        return cls(weights, stops, frozenset(kind for kind, _ in found))

    def covered(self, text: str, heading: str = "", beside: str = "") -> float:
        """The share of the question's weight that a text takes up, 0 to 1.

        Args:
            heading: what it stands under, for a lesser share.
            beside: the sentences before and after it, for the least.
        """
        total = sum(self.weights.values())
        if not total:
            return 0.0
        places = ((1.0, words(text)), (HEADING_SHARE, words(heading)), (BESIDE_SHARE, words(beside)))
        return (
            sum(
                weight * max(share * _nearest(word, held) for share, held in places)
                for word, weight in self.weights.items()
            )
            / total
        )

    def density(self, text: str) -> float:
        """The share of a text's own words that the question speaks of, 0 to 1: of two that cover it, the one that
        is about nothing else is the answer.
        """
        own = [word for word in words(text) if word not in self.stops and word.isalpha()]
        about = [word for word in self.weights if word not in self.stops]
        return sum(_nearest(word, about) for word in own) / len(own) if own else 0.0

    def figures(self, text: str) -> int:
        """1 where the text holds a figure of a kind that is asked for, -1 where it holds none; 0 if none is asked for."""
        if not self.kinds:
            return 0
        return 1 if any(FIGURES[kind].search(text) for kind in self.kinds) else -1


def _nearest(word: str, others: Iterable[str]) -> float:
    return max((kinship(word, other) for other in others), default=0.0)
