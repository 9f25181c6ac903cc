"""How near a text is to others: sentence embeddings and character n-grams, weighed by language.

MiniLM knows English only; character n-grams work in every language but see no synonyms. In English their
mixture beats either; elsewhere characters alone are as good.
"""

import asyncio
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog

from storage.vectors.embedder import Embedder

log = structlog.get_logger(__name__)

Floats = np.ndarray[Any, np.dtype[np.float32]]

WORD = re.compile(r"⟦[A-Z_]+_[0-9]+⟧|[^\W_]+")
SHORTEST, LONGEST = 2, 5
ENGLISH_WEIGHT, OTHER_WEIGHT = 0.5, 0.1
RIDGE = 0.3
# How fast a lead in the regression's values (about 0 to 1) settles the choice.
SHARPNESS = 6.0


def ngrams(text: str) -> Counter[str]:
    """The character 2- to 5-grams of each word with its borders; a placeholder counts as one, by its kind."""
    found: Counter[str] = Counter()
    for word in WORD.findall(text):
        if word.startswith("⟦"):
            found[word.rpartition("_")[0]] += 1
            continue
        padded = f" {word.casefold()} "
        for size in range(SHORTEST, LONGEST + 1):
            found.update(padded[at : at + size] for at in range(len(padded) - size + 1))
    return found


class NgramIndex:
    """Cosine of tf-idf weighted n-grams between a query and a fixed list of texts, 0 to 1."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [ngrams(text) for text in texts]
        held_by = Counter(gram for count in counts for gram in count)
        self._size = len(texts)
        self._weight = {gram: self._rarity(times) for gram, times in held_by.items()}
        self._texts_with: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for at, count in enumerate(counts):
            norm, weighted = self._weigh(count)
            for gram, value in weighted.items():
                self._texts_with[gram].append((at, value / norm))

    def scores(self, query: str) -> Floats:
        """Cosines, [n] float32, in the order of the texts."""
        total = np.zeros(self._size, dtype=np.float32)
        norm, weighted = self._weigh(ngrams(query))
        for gram, value in weighted.items():
            for at, share in self._texts_with.get(gram, ()):
                total[at] += value / norm * share
        return total

    def _rarity(self, times: int) -> float:
        return math.log((1 + self._size) / (1 + times)) + 1

    def _weigh(self, count: Counter[str]) -> tuple[float, dict[str, float]]:
        # what no text holds still counts in the norm: a query about something else must not look near
        unseen = self._rarity(0)
        weighted = {gram: (1 + math.log(n)) * self._weight.get(gram, unseen) for gram, n in count.items()}
        return math.sqrt(sum(value * value for value in weighted.values())) or 1.0, weighted


def understands(model_id: str, language: str) -> bool:
    """Whether the embeddings of a model mean anything in a language."""
    return language == "en" or not model_id.startswith("minilm")


def embedding_weight(model_id: str, language: str) -> float:
    """The embeddings' share of the mixture, 0 to 1."""
    return ENGLISH_WEIGHT if understands(model_id, language) else OTHER_WEIGHT


class TextIndex:
    """Nearness of a query to fixed texts by both measures; the texts are embedded once, at first use."""

    def __init__(self, texts: Sequence[str], embedder: Embedder) -> None:
        # no text has more tokens than characters, so a cut here is never refused by the embedder
        self._cut = [text[: embedder.max_tokens] for text in texts]
        self._texts = texts
        self._embedder = embedder
        self._ngrams = NgramIndex(texts)
        self._vectors: Floats | None = None

    async def scores(self, query: str, language: str) -> Floats:
        """Nearness, [n] float32, about -0.1 to 1; by n-grams alone where the embedder fails."""
        near = self._ngrams.scores(query)
        try:
            vectors = await self._embedded()
            vector: Floats = await self._embedder.embed_query(query)
        except Exception as error:
            # the embedder may be the provider whose failure brought us here, whatever it raises
            log.warning("similarity.without_embeddings", error=type(error).__name__)
            return near
        weight = embedding_weight(self._embedder.model_id, language)
        mixed: Floats = (weight * (vectors @ vector) + (1 - weight) * near).astype(np.float32)
        return mixed

    async def among_themselves(self, language: str) -> tuple[Floats, bool]:
        """Nearness of the texts to each other, [n, n] float32; and whether embeddings are in it."""
        near = await asyncio.to_thread(lambda: np.stack([self._ngrams.scores(text) for text in self._texts]))
        try:
            vectors = await self._embedded()
        except Exception as error:
            log.warning("similarity.without_embeddings", error=type(error).__name__)
            return near, False
        weight = embedding_weight(self._embedder.model_id, language)
        mixed: Floats = (weight * (vectors @ vectors.T) + (1 - weight) * near).astype(np.float32)
        return mixed, True

    async def _embedded(self) -> Floats:
        if self._vectors is None:
            self._vectors = await self._embedder.embed_documents(self._cut)
        return self._vectors


@dataclass(frozen=True)
class Seed:
    """An example sentence and what it is an example of."""

    label: str
    language: str
    text: str


@dataclass(frozen=True)
class Choice:
    """What a text is most likely an example of.

    Attributes:
        label: the likeliest.
        share: its likelihood among the labels, 0 to 1, given that any of them is meant.
        nearness: of its nearest example, about 0 to 1; low where none of the labels is meant.
    """

    label: str
    share: float
    nearness: float


class SeedClassifier:
    """Chooses a label by ridge regression on the nearness to every example in the query's language.

    The regression weighs all examples and chooses better than the nearest one alone (leave-one-out on our own
    examples: .91 against .78 in English); whether any label is meant is told better by the nearest one.
    """

    def __init__(self, seeds: Sequence[Seed], embedder: Embedder) -> None:
        self._seeds = list(seeds)
        self._embedder = embedder
        self._fitted: dict[str, _Fit] = {}

    async def choose(self, text: str, language: str) -> Choice:
        """The likeliest label for `text`."""
        fit = await self._fit(language)
        scores = await fit.index.scores(text, language)
        values = scores @ fit.weights
        best = int(np.argmax(values))
        share = 1 / float(np.exp(SHARPNESS * (values - values[best])).sum())
        nearest = max(float(score) for score, of in zip(scores, fit.labels_of, strict=True) if of == best)
        return Choice(fit.labels[best], share, nearest)

    async def _fit(self, language: str) -> "_Fit":
        if language in self._fitted:
            return self._fitted[language]
        seeds = [seed for seed in self._seeds if seed.language == language] or self._seeds
        index = TextIndex([seed.text for seed in seeds], self._embedder)
        labels = tuple(dict.fromkeys(seed.label for seed in seeds))
        labels_of = tuple(labels.index(seed.label) for seed in seeds)
        targets = np.eye(len(labels))[list(labels_of)]
        near, complete = await index.among_themselves(language)
        ridge = (near + near.T) / 2 + RIDGE * np.eye(len(seeds))
        weights = np.linalg.solve(ridge, targets - targets.mean(axis=0)).astype(np.float32)
        fit = _Fit(index, labels, labels_of, weights)
        if complete:
            self._fitted[language] = fit
        return fit


@dataclass(frozen=True)
class _Fit:
    """One language's regression: `weights` is [examples, labels], `labels_of` each example's label."""

    index: TextIndex
    labels: tuple[str, ...]
    labels_of: tuple[int, ...]
    weights: Floats
