"""Shapes of the knowledge domain."""

from datetime import datetime
from typing import Annotated, Protocol, runtime_checkable
from uuid import UUID

import msgspec
from pydantic import Field

from storage.tenancy import TenantContext
from tools.sdk.fields import PLAIN, ToolArgs, ToolOut


class SearchArgs(ToolArgs):
    query: Annotated[
        str,
        PLAIN,
        Field(
            description="The question, in the customer's words and language.", min_length=1, max_length=4000
        ),
    ]


class PassageOut(ToolOut):
    """A passage as the model sees it. ``ref`` is the chunk, by which a citation is checked."""

    id: Annotated[str, PLAIN]
    document: Annotated[str, PLAIN]
    page: int
    text: Annotated[str, PLAIN]
    score: float
    ref: Annotated[str, PLAIN]


class SearchOut(ToolOut):
    passages: list[PassageOut]


@runtime_checkable  # Litestar checks what it injects with isinstance
class DocumentIntake(Protocol):
    """Takes an uploaded file in; implemented by ingest.pipeline and injected at the edge (tools and ingest do
    not import each other).
    """

    async def accept(self, context: TenantContext, data: bytes, filename: str) -> UUID:
        """Parse and store; returns the document's id. Raises an AppError that says what is wrong with the
        file.
        """
        ...

    async def remove(self, context: TenantContext, document_id: UUID) -> None:
        """Delete a document everywhere."""
        ...


class Document(msgspec.Struct):
    """``state``: extracted, embedded (being worked on), ready, or what is missing."""

    id: UUID
    filename: str
    title: str
    content_type: str
    language: str | None
    size: int
    parser: str
    state: str
    error: str | None
    created_at: datetime
    pages: int | None = None
    chunks: int | None = None


class Page(msgspec.Struct):
    """A page's text; pages are numbered from 1, a file without pages has one."""

    document_id: UUID
    number: int
    text: str


class SearchIn(msgspec.Struct, forbid_unknown_fields=True):
    query: Annotated[str, msgspec.Meta(max_length=4000)]
    limit: int = 5


class Found(msgspec.Struct):
    document_id: UUID
    document: str
    page: int
    text: str
    score: float
