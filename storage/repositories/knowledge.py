"""Documents and what is searched in them. PostgreSQL is the truth: a hit of the vector index counts only
after ``passages``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np

from storage.errors import NotFound
from storage.ids import new_id
from storage.sql import Session, text
from storage.tenancy import rowcount

# Text-search configurations that PostgreSQL ships with, by language; others are searched unstemmed.
CONFIGS = {
    "en": "english",
    "de": "german",
    "es": "spanish",
    "fr": "french",
    "it": "italian",
    "nl": "dutch",
    "pt": "portuguese",
}


def config_for(language: str | None) -> str:
    return CONFIGS.get(language or "", "simple")


@dataclass(frozen=True)
class NewChunk:
    """A chunk to be stored; ``page`` and the span say where it stands."""

    ordinal: int
    page: int
    char_start: int
    char_end: int
    text: str
    heading_path: str
    tokens: int


@dataclass(frozen=True)
class Passage:
    """A chunk that may be shown: its document is ready and belongs to the tenant."""

    chunk_id: UUID
    document_id: UUID
    document: str
    page: int
    char_start: int
    text: str
    language: str


async def add_document(
    session: Session, *, source: str, fields: dict[str, Any], pages: Sequence[tuple[int, str]]
) -> tuple[UUID, bool]:
    """Store a parsed file: (id, True), or (id of the same bytes, False).

    Args:
        source: name of the upload source; made where it is missing.
        fields: filename, title, content_type, language, sha256, size, parser.
        pages: (number, normalised text).
    """
    source_id = (
        await session.execute(
            text("""
            insert into knowledge_sources (id, kind, name) values (:id, 'upload', :name)
            on conflict (tenant_id, kind, name) do update set name = excluded.name returning id
            """),
            {"id": new_id(), "name": source},
        )
    ).scalar_one()
    document_id = new_id()
    added = await session.execute(
        text("""
        insert into documents (id, source_id, filename, title, content_type, language, sha256, size, parser, state)
        values (:id, :source, :filename, :title, :content_type, :language, :sha256, :size, :parser, 'extracted')
        on conflict (tenant_id, sha256) do nothing
        """),
        {"id": document_id, "source": source_id, **fields},
    )
    if rowcount(added) == 0:
        existing = await session.execute(
            text("select id from documents where sha256 = :sha256"), {"sha256": fields["sha256"]}
        )
        return existing.scalar_one(), False
    await session.execute(
        text("insert into document_pages (document_id, number, text) values (:document, :number, :text)"),
        [{"document": document_id, "number": number, "text": body} for number, body in pages],
    )
    return document_id, True


async def get_document(session: Session, document_id: UUID) -> dict[str, Any]:
    """One document with its number of pages and chunks.

    Raises:
        NotFound: missing, or another tenant's.
    """
    row = (
        await session.execute(
            text("""
            select d.id, d.filename, d.title, d.content_type, d.language, d.size, d.parser, d.state, d.error, d.attempts, d.created_at,
                   (select count(*) from document_pages p where p.document_id = d.id) as pages,
                   (select count(*) from chunks c where c.document_id = d.id) as chunks
              from documents d where d.id = :id
            """),
            {"id": document_id},
        )
    ).one_or_none()
    if row is None:
        raise NotFound("No such document.")
    return dict(row._mapping)


async def list_documents(session: Session, limit: int = 200) -> list[dict[str, Any]]:
    rows = await session.execute(
        text("""
        select id, filename, title, content_type, language, size, parser, state, error, attempts, created_at from documents
         order by created_at desc limit :limit
        """),
        {"limit": limit},
    )
    return [dict(row._mapping) for row in rows]


async def delete_document(session: Session, document_id: UUID) -> None:
    """Take a document and all that hangs on it away; from the commit on nothing of it can be cited.

    Raises:
        NotFound: missing, or another tenant's.
    """
    if (
        rowcount(await session.execute(text("delete from documents where id = :id"), {"id": document_id}))
        == 0
    ):
        raise NotFound("No such document.")


async def pages(session: Session, document_id: UUID) -> list[tuple[int, str]]:
    rows = await session.execute(
        text("select number, text from document_pages where document_id = :id order by number"),
        {"id": document_id},
    )
    return [(row.number, row.text) for row in rows]


async def page_text(session: Session, document_id: UUID, number: int) -> str | None:
    found: str | None = await session.scalar(
        text("select text from document_pages where document_id = :id and number = :number"),
        {"id": document_id, "number": number},
    )
    return found


async def set_state(
    session: Session, document_id: UUID, state: str, error: str | None = None, model: str | None = None
) -> None:
    await session.execute(
        text("""
        update documents set state = :state, error = :error, embedding_model = coalesce(:model, embedding_model),
               updated_at = clock_timestamp() where id = :id
        """),
        {"id": document_id, "state": state, "error": error, "model": model},
    )


async def lock_state(session: Session, document_id: UUID) -> str | None:
    """The document's state, held until the transaction ends; None where it was deleted meanwhile."""
    state: str | None = await session.scalar(
        text("select state from documents where id = :id for update"), {"id": document_id}
    )
    return state


async def note_attempt(session: Session, document_id: UUID, error: str | None = None) -> int:
    """Count a try at a document; returns how many there were."""
    attempts: int | None = await session.scalar(
        text("""
        update documents set attempts = attempts + 1, error = :error, updated_at = clock_timestamp() where id = :id returning attempts
        """),
        {"id": document_id, "error": error},
    )
    return attempts or 0


async def store_chunks(
    session: Session,
    document_id: UUID,
    chunks: Sequence[NewChunk],
    vectors: np.ndarray,
    *,
    language: str | None,
    model: str,
) -> list[UUID]:
    """Chunks, their terms for BM25 and their vectors, in place of those from an earlier try; the document
    becomes ``embedded``.
    """
    await session.execute(text("delete from chunks where document_id = :id"), {"id": document_id})
    ids = [new_id() for _ in chunks]
    await session.execute(
        text("""
        insert into chunks (id, document_id, ordinal, page, char_start, char_end, text, heading_path, tokens, language)
        values (:id, :document, :ordinal, :page, :char_start, :char_end, :text, :heading_path, :tokens, :language)
        """),
        [
            {"id": chunk_id, "document": document_id, "language": language or "und", **vars(c)}
            for chunk_id, c in zip(ids, chunks, strict=True)
        ],
    )
    await session.execute(
        text("insert into embeddings (chunk_id, model, vector) values (:chunk, :model, :vector)"),
        [
            {"chunk": chunk_id, "model": model, "vector": vector.astype("<f4").tobytes()}
            for chunk_id, vector in zip(ids, vectors, strict=True)
        ],
    )
    await session.execute(
        text("""
        with words as (
          select b.id, l.lexeme as term, coalesce(array_length(l.positions, 1), 1) as tf
            from unnest(cast(:ids as uuid[]), cast(:bodies as text[])) as b(id, body),
                 unnest(to_tsvector(cast(:config as regconfig), b.body)) as l),
        terms as (insert into kb_terms (config, term, chunk_id, tf) select :config, term, id, tf from words)
        insert into kb_lengths (config, chunk_id, length) select :config, id, sum(tf) from words group by id
        """),
        {
            "ids": ids,
            "bodies": [f"{c.heading_path} {c.text}" for c in chunks],
            "config": config_for(language),
        },
    )
    await set_state(session, document_id, "embedded", model=model)
    return ids


async def vectors_of(session: Session, document_id: UUID, model: str) -> tuple[list[UUID], np.ndarray]:
    """A document's chunk ids and vectors [n, dim] under a model, for the index."""
    rows = (
        await session.execute(
            text("""
            select e.chunk_id, e.vector from embeddings e join chunks c on c.id = e.chunk_id
             where c.document_id = :id and e.model = :model order by c.ordinal
            """),
            {"id": document_id, "model": model},
        )
    ).all()
    return [row.chunk_id for row in rows], np.array(
        [np.frombuffer(row.vector, "<f4") for row in rows], np.float32
    )


async def all_vectors(session: Session, model: str) -> tuple[list[UUID], np.ndarray]:
    """All vectors of the tenant's ready documents: the exact scan that stands in while the index is down."""
    rows = (
        await session.execute(
            text("""
            select e.chunk_id, e.vector from embeddings e join chunks c on c.id = e.chunk_id join documents d on d.id = c.document_id
             where e.model = :model and d.state = 'ready'
            """),
            {"model": model},
        )
    ).all()
    return [row.chunk_id for row in rows], np.array(
        [np.frombuffer(row.vector, "<f4") for row in rows], np.float32
    )


async def document_ids(session: Session, state: str) -> list[UUID]:
    return list(
        await session.scalars(
            text("select id from documents where state = :state order by created_at"), {"state": state}
        )
    )


# Equality of text is leakproof: the index of kb_terms serves under a policy too, which `@@` on a tsvector would not get.
BM25 = """
with configs as (select config, count(*)::float8 as n, greatest(sum(length), 1)::float8 / count(*) as average
                   from kb_lengths group by config),
q as (select c.config, c.n, c.average, w.lexeme as term, coalesce(array_length(w.positions, 1), 1) as qtf
        from configs c, unnest(to_tsvector(c.config::regconfig, :question)) as w),
df as (select q.config, q.term, count(*)::float8 as df from q join kb_terms t on t.config = q.config and t.term = q.term
        group by q.config, q.term)
select t.chunk_id, sum(q.qtf * ln(1 + (q.n - df.df + 0.5) / (df.df + 0.5)) * t.tf * 2.2
                       / (t.tf + 1.2 * (0.25 + 0.75 * l.length / q.average))) as score
  from q join df on df.config = q.config and df.term = q.term
  join kb_terms t on t.config = q.config and t.term = q.term
  join kb_lengths l on l.config = t.config and l.chunk_id = t.chunk_id
 group by t.chunk_id order by score desc, t.chunk_id limit :limit
"""


async def bm25(session: Session, question: str, limit: int) -> list[tuple[UUID, float]]:
    """Chunks by BM25 (k1 1.2, b 0.75), each language's documents with that language's stemming and stop
    words, best first.
    """
    rows = await session.execute(
        text(BM25),
        {"question": question.replace("\x00", ""), "limit": limit},
    )
    return [(row.chunk_id, float(row.score)) for row in rows]


async def passages(session: Session, chunk_ids: Sequence[UUID]) -> dict[UUID, Passage]:
    """Those of the chunks that exist, belong to the tenant and whose document is ready."""
    rows = await session.execute(
        text("""
        select c.id as chunk_id, d.id as document_id, d.title as document, c.page, c.char_start, c.text, c.language
          from chunks c join documents d on d.id = c.document_id where c.id = any(:ids) and d.state = 'ready'
        """),
        {"ids": list(chunk_ids)},
    )
    return {row.chunk_id: Passage(**row._mapping) for row in rows}


async def due_documents(session: Session, *, limit: int) -> list[tuple[UUID, UUID]]:
    """For the sweep (platform role): (tenant, document) that is on its way to ready and was left alone for a
    while.
    """
    rows = await session.execute(
        text("""
        select tenant_id, id from documents where state in ('extracted', 'embedded')
           and updated_at < clock_timestamp() - make_interval(secs => 5 + 10 * attempts) limit :limit
        """),
        {"limit": limit},
    )
    return [(row.tenant_id, row.id) for row in rows]
