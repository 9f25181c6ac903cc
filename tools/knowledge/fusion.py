"""One ranking out of two."""

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

DENSE_WEIGHT = (
    0.3  # plain reciprocal rank fusion measured worse than BM25 alone in German; see ARCHITECTURE.md, D-008
)


def fuse(
    dense: Sequence[tuple[UUID, float]], bm25: Sequence[tuple[UUID, float]], weight: float = DENSE_WEIGHT
) -> list[tuple[UUID, float]]:
    """Weighted sum of scores, best first; ties by id, so that the order is always the same.

    The dense scores are spread over [0, 1]; BM25 is divided by its maximum (spreading it would zero a single
    hit). A side that does not know a chunk counts 0 for it.

    Args:
        dense: (chunk, cosine), best first.
        bm25: (chunk, score), best first.
        weight: of the dense side, 0 to 1.
    """
    scores: dict[UUID, float] = defaultdict(float)
    if dense:
        low, high = dense[-1][1], dense[0][1]
        for chunk, score in dense:
            scores[chunk] += weight * ((score - low) / (high - low) if high > low else 1.0)
    for chunk, score in bm25:
        scores[chunk] += (1 - weight) * score / bm25[0][1]
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
