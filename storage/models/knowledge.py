"""Documents, the page texts that citations are checked against, chunks, embeddings, and the terms for BM25."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy import (
    text as sql_text,
)
from sqlalchemy.orm import Mapped, mapped_column

from storage.base import TenantRow, TenantTable, to_tenant, within_tenant
from storage.registry import plain

WORKING_STATES = ("queued", "extracted", "embedded")
READY = "ready"
FAILED_STATES = (
    "needs_ocr",
    "empty",
    "encrypted",
    "unsupported",
    "too_large",
    "parse_failed",
    "parse_crashed",
    "index_failed",
)


class KnowledgeSource(TenantRow):
    """Where documents come from: an upload folder, later a web site."""

    __tablename__ = "knowledge_sources"

    kind: Mapped[str] = mapped_column(Text, info=plain())
    name: Mapped[str] = mapped_column(Text, info=plain())

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (UniqueConstraint("tenant_id", "kind", "name"),)


class Document(TenantRow):
    """A file of the tenant. ``ready`` means: has chunks, each with an embedding; any other state says what is
    missing.
    """

    __tablename__ = "documents"

    source_id: Mapped[UUID]
    filename: Mapped[str] = mapped_column(Text, info=plain())
    title: Mapped[str] = mapped_column(Text, info=plain())
    content_type: Mapped[str] = mapped_column(Text, info=plain())
    language: Mapped[str | None] = mapped_column(Text, info=plain())
    sha256: Mapped[str] = mapped_column(Text, info=plain())
    size: Mapped[int]
    parser: Mapped[str] = mapped_column(Text, info=plain())
    state: Mapped[str] = mapped_column(Text, info=plain())
    error: Mapped[str | None] = mapped_column(Text, info=plain())
    attempts: Mapped[int] = mapped_column(server_default="0")
    embedding_model: Mapped[str | None] = mapped_column(Text, info=plain())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        states = ", ".join(f"'{state}'" for state in (*WORKING_STATES, READY, *FAILED_STATES))
        return (
            within_tenant("source_id", "knowledge_sources"),
            UniqueConstraint("tenant_id", "sha256"),
            CheckConstraint(f"state in ({states})", name="state"),
            Index(
                "ix_documents_working",
                "tenant_id",
                "state",
                postgresql_where=sql_text("state in ('queued', 'extracted', 'embedded')"),
            ),
        )


class DocumentPage(TenantTable):
    """The normalised text of one page: what a quote must be found in, character for character."""

    __tablename__ = "document_pages"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "document_id", "number"),
        to_tenant(),
        within_tenant("document_id", "documents"),
    )

    document_id: Mapped[UUID]
    number: Mapped[int]
    text: Mapped[str] = mapped_column(Text, info=plain())


class Chunk(TenantRow):
    """A run of sentences on one page: ``page.text[char_start:char_end] == text``."""

    __tablename__ = "chunks"

    document_id: Mapped[UUID]
    ordinal: Mapped[int]
    page: Mapped[int]
    char_start: Mapped[int]
    char_end: Mapped[int]
    text: Mapped[str] = mapped_column(Text, info=plain())
    heading_path: Mapped[str] = mapped_column(Text, server_default="", info=plain())
    tokens: Mapped[int]
    language: Mapped[str] = mapped_column(Text, info=plain())

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return (
            within_tenant("document_id", "documents"),
            UniqueConstraint("tenant_id", "document_id", "ordinal"),
        )


class Embedding(TenantTable):
    """A chunk's vector under one model: little-endian float32. Chroma is rebuilt from these."""

    __tablename__ = "embeddings"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "chunk_id", "model"),
        to_tenant(),
        within_tenant("chunk_id", "chunks"),
    )

    chunk_id: Mapped[UUID]
    model: Mapped[str] = mapped_column(Text, info=plain())
    vector: Mapped[bytes] = mapped_column(LargeBinary, info=plain())


class ChunkTerms(TenantTable):
    """How often a term stands in a chunk, per text-search configuration ('english', 'german', …)."""

    __tablename__ = "kb_terms"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "config", "term", "chunk_id"),
        to_tenant(),
        within_tenant("chunk_id", "chunks"),
        Index(None, "tenant_id", "chunk_id"),
    )

    config: Mapped[str] = mapped_column(Text, info=plain())
    term: Mapped[str] = mapped_column(Text, info=plain())
    chunk_id: Mapped[UUID]
    tf: Mapped[int]


class ChunkLength(TenantTable):
    """Number of indexed terms of a chunk."""

    __tablename__ = "kb_lengths"
    __table_args__ = (
        PrimaryKeyConstraint("tenant_id", "config", "chunk_id"),
        to_tenant(),
        within_tenant("chunk_id", "chunks"),
    )

    config: Mapped[str] = mapped_column(Text, info=plain())
    chunk_id: Mapped[UUID]
    length: Mapped[int]
