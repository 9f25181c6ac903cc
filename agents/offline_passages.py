"""An answer out of retrieved passages without a model: the best sentence, quoted character for character."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from agents.offline_relevance import Asked
from agents.offline_sentences import QUOTE_LIMIT, Sentence, sentences
from agents.similarity import ENGLISH_WEIGHT, Floats, understands
from storage.quotes import locate
from storage.vectors.embedder import Embedder

log = structlog.get_logger(__name__)

# What a sentence needs to be an answer. Both were chosen on the odd ones of the demo's questions (tests/evals).
NEAR_ENOUGH, NEAR_ENOUGH_BY_WORDS = 0.40, 0.36
# A figure of the kind that is asked for (a price, a time) speaks for a sentence, its lack against it.
FIGURE_WEIGHT = 0.08
DENSITY_WEIGHT = 0.1
# How much the retrieval's own score (0 to 1) adds to a sentence's rank.
RETRIEVAL_WEIGHT = 0.1
# The share of the best sentence's nearness with which a neighbour is quoted too: the next sentence often goes on
# about it, the one before seldom; a row of a table only where the question may mean either.
NEXT_SHARE, BEFORE_SHARE, ROW_SHARE = 0.4, 0.6, 0.9
# Characters below which a sentence is taken to lean on the one before ("Please do not ride them.").
SHORT = 40
KEPT_VECTORS = 4_000


@dataclass(frozen=True)
class Passage:
    """One hit of the knowledge search, as its tool sends it."""

    id: str
    text: str
    score: float


@dataclass(frozen=True)
class Quote:
    """A span of a passage.

    Attributes:
        text: stands in the passage exactly so.
        spoken: the same, fit to be read: a table's row with its head, no line ends.
    """

    passage: Passage
    text: str
    spoken: str

    @property
    def citation(self) -> str:
        """The marker, in the form that is verified against the source."""
        return f'[{self.passage.id}: "{self.text}"]'


@dataclass(frozen=True)
class _Candidate:
    passage: Passage
    sentence: Sentence
    beside: tuple[Sentence, ...]

    @property
    def embed_text(self) -> str:
        return (
            f"{self.sentence.under}: {self.sentence.spoken}" if self.sentence.under else self.sentence.spoken
        )


def read_passages(result: Any) -> list[Passage] | None:
    """Read a tool's parsed result; None where it is not one of the knowledge search."""
    if not isinstance(result, dict) or not isinstance(result.get("passages"), list):
        return None
    return [
        Passage(str(entry["id"]), str(entry["text"]), float(entry.get("score") or 0.0))
        for entry in result["passages"]
        if isinstance(entry, dict) and entry.get("id") and entry.get("text")
    ]


def parse(content: Any) -> Any:
    """A tool message's content as JSON; None where it is none."""
    try:
        return json.loads(content) if isinstance(content, str) else None
    except ValueError:
        return None


class QuoteFinder:
    """Finds the sentence that answers a question.

    Args:
        cues: by language: kind of figure -> words that ask for one.
    """

    def __init__(self, embedder: Embedder, cues: Callable[[str], Mapping[str, Sequence[str]]]) -> None:
        self._embedder = embedder
        self._cues = cues
        # a business has the same few hundred sentences for every question
        self._vectors: dict[str, Floats] = {}

    async def best(self, question: str, passages: Sequence[Passage], language: str) -> Quote | None:
        """The best sentence, with a neighbour that helps; None where nothing is near enough."""
        candidates = list(_candidates(passages))
        if not candidates:
            return None
        asked = Asked.read(question, language, self._cues(language), [each.embed_text for each in candidates])
        by_words = np.array([_by_words(asked, each) for each in candidates], np.float32)
        scores = by_words.copy()
        near_enough = NEAR_ENOUGH_BY_WORDS
        if understands(self._embedder.model_id, language):
            cosines = await self._cosines(question, candidates)
            if cosines is not None:
                scores = ENGLISH_WEIGHT * cosines + (1 - ENGLISH_WEIGHT) * scores
                near_enough = NEAR_ENOUGH
        scores += [
            FIGURE_WEIGHT * asked.figures(each.sentence.spoken)
            + DENSITY_WEIGHT * asked.density(each.sentence.spoken)
            for each in candidates
        ]
        # the retrieval's score compares passages; it does not say that there is an answer among them
        ranks = scores + [RETRIEVAL_WEIGHT * each.passage.score for each in candidates]
        for at in np.argsort(-ranks, kind="stable"):
            if scores[at] < near_enough:
                return None
            quote = _quoted(candidates, scores, by_words, int(at))
            # too short a text cannot be told from another one like it, and would not leave
            if locate(quote.text, quote.passage.text) is not None:
                return quote
        return None

    async def _cosines(self, question: str, candidates: Sequence[_Candidate]) -> Floats | None:
        """Cosine of the question and each candidate, [n]; None where the embedder fails."""
        # no text has more tokens than characters, so a cut here is never refused by the embedder
        texts = [each.embed_text[: self._embedder.max_tokens] for each in candidates]
        try:
            vector = await self._embedder.embed_query(question)
            if missing := [text for text in dict.fromkeys(texts) if text not in self._vectors]:
                if len(self._vectors) + len(missing) > KEPT_VECTORS:
                    self._vectors.clear()
                    missing = list(dict.fromkeys(texts))
                embedded = await self._embedder.embed_documents(missing)
                self._vectors |= dict(zip(missing, embedded, strict=True))
        except Exception as error:
            # the embedder may be the provider whose failure brought us here, whatever it raises
            log.warning("quotes.without_embeddings", error=type(error).__name__)
            return None
        cosines: Floats = np.stack([self._vectors[text] for text in texts]) @ vector
        return cosines


def _candidates(passages: Sequence[Passage]) -> Iterator[_Candidate]:
    seen: set[str] = set()
    for passage in passages:
        found = sentences(passage.text)
        for at, sentence in enumerate(found):
            # chunks overlap, so a sentence may be found twice
            if sentence.spoken not in seen:
                seen.add(sentence.spoken)
                yield _Candidate(passage, sentence, tuple(_beside(found, at)))


def _beside(found: Sequence[Sentence], at: int) -> Iterator[Sentence]:
    """The next sentence and the one before, of the same paragraph or the same table."""
    for other in (at + 1, at - 1):
        if 0 <= other < len(found) and _belong(found[at], found[other]):
            yield found[other]


def _belong(one: Sentence, other: Sentence) -> bool:
    if one.row or other.row:
        return one.row and other.row and one.under == other.under
    return one.block == other.block


def _by_words(asked: Asked, candidate: _Candidate) -> float:
    # a row stands for itself: its neighbours are about other things
    beside = "" if candidate.sentence.row else " ".join(each.spoken for each in candidate.beside)
    return asked.covered(candidate.sentence.spoken, candidate.sentence.under, beside)


def _quoted(candidates: Sequence[_Candidate], scores: Floats, by_words: Floats, best: int) -> Quote:
    chosen = candidates[best].sentence
    passage = candidates[best].passage
    # the rows of a table are all alike but for the words that the question names
    shares = by_words / by_words[best] if chosen.row and by_words[best] else scores / scores[best]
    of = {each.sentence: (each, float(share)) for each, share in zip(candidates, shares, strict=True)}
    short = len(chosen.spoken) < SHORT
    parts, waiting = [chosen], sorted(candidates[best].beside, key=lambda each: each.start, reverse=not short)
    while waiting:
        other = waiting.pop(0)
        wanted = NEXT_SHARE if short or other.start > chosen.start else BEFORE_SHARE
        wanted = ROW_SHARE if other.row else wanted
        start, end = min(parts[0].start, other.start), max(parts[-1].end, other.end)
        candidate, share = of.get(other, (None, 0.0))
        if candidate is None or share < wanted or end - start > QUOTE_LIMIT or other in parts:
            continue
        parts = sorted([*parts, other], key=lambda each: each.start)
        # of sentences one is enough; the rows that the question may mean are all wanted
        waiting = [*waiting, *candidate.beside] if other.row else []
    spoken = ("; " if chosen.row else " ").join(part.spoken for part in parts)
    if chosen.row and chosen.heading and not chosen.heading.endswith("?"):
        spoken = f"{chosen.heading.rstrip(':')}: {spoken}"
    return Quote(passage, passage.text[parts[0].start : parts[-1].end], spoken)
