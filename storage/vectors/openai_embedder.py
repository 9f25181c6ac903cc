"""Embeddings from OpenAI or any server that speaks its wire."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from storage.vectors.embedder import TooLong
from storage.vectors.settings import KNOWN_DIMENSIONS, PROVIDER_URL, EmbeddingSettings

# A Latin word is cut into threes, any other sign counts alone. Byte-pair vocabularies take about 4 characters
# a token in English and 3 in German, so this counts too many tokens, never silently too few, for those.
_PIECE = re.compile(r"[A-Za-z]{1,3}|\S")
_BATCH = 256


class OpenAIEmbedder:
    """An OpenAI-compatible `/embeddings` endpoint.

    Token counts are an estimate on the safe side (see `offsets`): the exact tokenizer is a download, and a
    compatible server may use another one. Text in scripts that take several tokens a character can still be
    above the endpoint's limit; then the endpoint refuses, nothing is cut.

    Raises:
        ValueError: The settings name no model, or one whose dimension is unknown and not set.
        openai.OpenAIError: From the embed calls, after two retries of the client.
    """

    max_tokens = 8000

    def __init__(self, settings: EmbeddingSettings) -> None:
        name = settings.embedding_model
        if name is None:
            raise ValueError("EMBEDDING_MODEL is not set")
        dim = settings.embedding_dim or KNOWN_DIMENSIONS.get(name)
        if dim is None:
            raise ValueError(f"EMBEDDING_DIM must be set for {name}: its dimension is not known here")
        self.dim = dim
        # Collection names take [a-zA-Z0-9._-] only, and model names may hold a slash.
        self.model_id = "openai-" + re.sub(r"[^a-zA-Z0-9._-]+", "-", name)
        self._client = OpenAIEmbeddings(
            model=name,
            openai_api_key=settings.openai_api_key or SecretStr("not-needed"),
            openai_api_base=settings.openai_base_url or PROVIDER_URL,
            request_timeout=settings.embedding_timeout,
            dimensions=settings.embedding_dim if name.startswith("text-embedding-3") else None,
            # True would download a tokenizer and send token ids, which compatible servers do not read.
            check_embedding_ctx_length=False,
            chunk_size=_BATCH,
        )

    async def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        """See `Embedder.embed_documents`."""
        for index, text in enumerate(texts):
            if (tokens := len(self.offsets(text))) > self.max_tokens:
                raise TooLong(index, tokens, self.max_tokens)
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return self._unit(await self._client.aembed_documents(list(texts)))

    async def embed_query(self, text: str) -> np.ndarray:
        """See `Embedder.embed_query`."""
        spans = self.offsets(text)
        cut = text if len(spans) <= self.max_tokens else text[: spans[self.max_tokens - 1][1]]
        vector: np.ndarray = self._unit([await self._client.aembed_query(cut)])[0]
        return vector

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Estimated tokens: Latin words in pieces of three letters, every other visible sign by itself."""
        return [match.span() for match in _PIECE.finditer(text)]

    def _unit(self, rows: list[list[float]]) -> np.ndarray:
        vectors = np.asarray(rows, np.float32)
        if vectors.shape != (len(rows), self.dim):
            raise ValueError(
                f"{self.model_id} answered vectors of shape {vectors.shape}, expected dimension {self.dim}"
            )
        # Compatible servers do not all normalise, and a zero vector has no direction to compare.
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.all(norms > 0):
            raise ValueError(f"{self.model_id} answered a zero vector")
        unit: np.ndarray = vectors / norms
        return unit
