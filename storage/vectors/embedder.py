"""The one interface behind which texts become vectors, and the choice of who implements it.

A vector is only comparable with vectors of the same model, so `model_id` is part of every index name: a new
model builds a new generation beside the old one instead of mixing dimensions in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

    from storage.vectors.settings import EmbeddingSettings


class TooLong(ValueError):
    """A document text has more tokens than the model reads; nothing was embedded.

    Attributes:
        index: Position of the text in the call.
        tokens: What the text has, special tokens not counted.
        limit: What the model takes.
    """

    def __init__(self, index: int, tokens: int, limit: int) -> None:
        super().__init__(f"text {index} has {tokens} tokens, the embedder reads {limit}: chunk it smaller")
        self.index = index
        self.tokens = tokens
        self.limit = limit


class Embedder(Protocol):
    """Turns texts into unit vectors: the dot product of two of them is their cosine.

    Attributes:
        model_id: Stable name, safe in a collection name, e.g. "minilm-l6-v2-fp32".
        dim: Length of a vector.
        max_tokens: Tokens of content that the model reads, special tokens not counted.
    """

    @property
    def model_id(self) -> str: ...

    @property
    def dim(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    async def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """Embeds texts to be found later.

        Returns:
            [n, dim] float32, each row of L2 norm 1, in the order of the texts; [0, dim] for none.

        Raises:
            TooLong: A text is above `max_tokens`. Never a silent cut: what is not embedded is not found.
        """
        ...

    async def embed_query(self, text: str) -> np.ndarray:
        """Embeds a question: [dim] float32, L2 norm 1. Only the first `max_tokens` tokens are read.

        A cut is right here: a question of more than a page has its subject near its beginning, and refusing a
        customer's message for its length would help nobody.
        """
        ...

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The character span (start, end) of each token of the whole text, without special tokens.

        The chunker counts with it, so it never truncates.
        """
        ...


def make_embedder(settings: EmbeddingSettings) -> Embedder:
    """The embedder of the settings: an OpenAI-compatible endpoint when a model is named, else MiniLM.

    The imports stand inside because each costs about a second and tens of megabytes, and a process needs one.

    Raises:
        ValueError: A hosted model is named whose dimension is neither known nor set.
    """
    if settings.embedding_model is not None:
        from storage.vectors.openai_embedder import OpenAIEmbedder

        return OpenAIEmbedder(settings)
    from storage.vectors.minilm import MiniLMEmbedder

    return MiniLMEmbedder(settings.model_cache_dir)
