# ruff: noqa: S608  # tables and columns come from the column registry
"""Whose data is where: the registry's tables with the conditions that reach one person's rows in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import LargeBinary

from storage.crypto.cipher import Subject
from storage.models.all import Base
from storage.registry import PersonalColumn, SubjectLink, columns
from storage.repositories.turns import step_id
from storage.sql import Session, text

ERASED = "erased:"
"""What a token begins with that stands where a value was part of a key."""

_PEOPLE = frozenset({"contact", "thread"})


@dataclass(frozen=True)
class Scope:
    """A contact with all their conversations, or (no contact) some conversations."""

    contact_id: UUID | None
    threads: tuple[UUID, ...]

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the conditions in ``PersonalTable.where``."""
        return {"contact": self.contact_id, "threads": list(self.threads)}

    @property
    def subjects(self) -> list[Subject]:
        """Whose keys seal this data."""
        contact = [] if self.contact_id is None else [Subject.contact(self.contact_id)]
        return [*contact, *map(Subject.thread, self.threads)]


@dataclass(frozen=True)
class PersonalTable:
    """A table that holds data of customers.

    Attributes:
        columns: the registered ones.
        key: its primary key within the tenant.
        shown: all columns that a person may see of a row of theirs: no keyed hashes, no credentials, none of our own leases.
        where: reaches the rows of a ``Scope``.
        depth: references between it and the subject; the farthest must be removed first.
    """

    name: str
    columns: tuple[PersonalColumn, ...]
    key: tuple[str, ...]
    shown: tuple[str, ...]
    where: str
    depth: int

    @property
    def removed_whole(self) -> bool:
        """Whether erasure removes the rows themselves."""
        return any(entry.personal.on_erasure == "row" for entry in self.columns)

    @property
    def sealed(self) -> tuple[str, ...]:
        return tuple(entry.column for entry in self.columns if entry.personal.sealed)

    @property
    def holds_files(self) -> bool:
        """Whether its rows' ids are names in the file store."""
        return any(entry.personal.kind == "FILE" for entry in self.columns)

    def row_id(self, row: Mapping[str, Any]) -> UUID:
        """What the sealed values of a row are bound to."""
        if "id" in row:
            found: UUID = row["id"]
            return found
        return step_id(row["turn_id"], row["ordinal"])


def tables() -> list[PersonalTable]:
    """All tables with data of customers, in the order in which their rows may be removed."""
    by_table: dict[str, list[PersonalColumn]] = {}
    for entry in columns():
        if entry.subject.kind in _PEOPLE:
            by_table.setdefault(entry.table, []).append(entry)
    links = _links()
    made = [_table(name, entries, links) for name, entries in by_table.items()]
    return sorted(made, key=lambda table: (-table.depth, table.name))


def what_is_left(entry: PersonalColumn) -> str | None:
    """The condition under which a column of a row still holds something that erasure would take; None for what stays."""
    match entry.personal.on_erasure:
        case "keep":
            return None
        case "row":
            return "true"
        case "null":
            return f"{entry.column} is not null"
        case "token":
            return f"({entry.column} is not null and not starts_with({entry.column}, '{ERASED}'))"


async def scope_of(session: Session, contact_id: UUID) -> Scope:
    """A contact and the conversations they had."""
    rows = await session.scalars(
        text("select id from threads where contact_id = :id order by id"), {"id": contact_id}
    )
    return Scope(contact_id, tuple(rows))


async def left_of(session: Session, scope: Scope) -> dict[str, int]:
    """Rows that still hold something, by ``table.column``: each registered column is looked at."""
    found: dict[str, int] = {}
    for table in tables():
        wanted = [(entry, left) for entry in table.columns if (left := what_is_left(entry)) is not None]
        if not wanted:
            continue
        counts = ", ".join(
            f"count(*) filter (where {left}) as c{number}" for number, (_, left) in enumerate(wanted)
        )
        row = (
            await session.execute(
                text(f"select {counts} from {table.name} where {table.where}"),
                scope.parameters,
            )
        ).one()
        found |= {entry.name: count for (entry, _), count in zip(wanted, row, strict=True)}
    return found


def _table(name: str, entries: Sequence[PersonalColumn], links: Mapping[str, SubjectLink]) -> PersonalTable:
    described = Base.metadata.tables[name]
    personal = {entry.column: entry.personal for entry in entries}
    where, depth = _reach(name, links)
    return PersonalTable(
        name=name,
        columns=tuple(entries),
        key=tuple(column.name for column in described.primary_key if column.name != "tenant_id"),
        shown=tuple(
            column.name
            for column in described.columns
            if column.name not in _OURS
            and (column.name not in personal or personal[column.name].kind != "CREDENTIAL")
            and (
                not isinstance(column.type, LargeBinary)
                or (column.name in personal and personal[column.name].sealed)
            )
        ),
        where=where,
        depth=depth,
    )


_OURS = frozenset({"tenant_id", "fence", "lease_until", "lease_token"})


def _reach(table: str, links: Mapping[str, SubjectLink]) -> tuple[str, int]:
    link = links[table]
    if link.via is None:
        return (
            f"{link.column} = :contact" if link.kind == "contact" else f"{link.column} = any(:threads)"
        ), 0
    where, depth = _reach(link.via, links)
    return f"{link.column} in (select id from {link.via} where {where})", depth + 1


def _links() -> dict[str, SubjectLink]:
    return {
        mapper.local_table.name: mapper.class_.__subject__  # type: ignore[attr-defined]  # a mapped table has a name
        for mapper in Base.registry.mappers
        if hasattr(mapper.class_, "__subject__")
    }
