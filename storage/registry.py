"""The column registry: each column that holds personal data says so once, in its model, and everything else follows.

``mapped_column(info=personal(...))`` says what kind of data it is, what for, how long, who may read it, whether it is
sealed (storage/crypto), and what erasure does to it; a model's ``__subject__`` says whose data its rows are. Sealing,
export, erasure, retention, the record of processing and the catalogue lint read it from here. A text column without
``personal`` or ``plain()`` is a finding of the lint: to forget is not possible, to lie needs a reviewer's yes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from sqlalchemy import ARRAY, JSON, LargeBinary, Text
from sqlalchemy.orm import Mapper

Kind = Literal[
    "NAME",
    "EMAIL",
    "PHONE",
    "COMPANY",
    "IDENTIFIER",
    "TEXT",
    "FILE",
    "CREDENTIAL",
    "DEVICE",
    "ACT",
    "CONSENT",
]
OnErasure = Literal["null", "token", "row", "keep"]
SubjectKind = Literal["thread", "contact", "account", "tenant"]

# Why we process, and on which basis (GDPR Art. 6). The record of processing prints these.
PURPOSES: Mapping[str, str] = {
    "conversation": "Answering a customer who wrote to the business (Art. 6(1)(b): contract or steps before one).",
    "relationship": "Knowing the business's customers and prospects (Art. 6(1)(f): legitimate interest; consent where recorded).",
    "staff_access": "Signing members of staff in and keeping their accounts safe (Art. 6(1)(b) and (f)).",
    "accountability": "Proving who did what with personal data (Art. 6(1)(c): Art. 5(2), 30 and 32 GDPR).",
    "operation": "Secrets of the business itself that reach other services.",
}
# Days that rows are kept where a tenant has set nothing of its own; None: until erased or the tenant ends.
RETENTION_DAYS: Mapping[str, int | None] = {
    "conversation": 730,
    "trace": 90,
    "relationship": None,
    "account": None,
    "session": 30,
    "audit": 1825,
    "operation": None,
}


@dataclass(frozen=True)
class Personal:
    """What a column holds.

    Attributes:
        kind: of the data, as the masker names it.
        purpose: key of PURPOSES.
        retention: key of RETENTION_DAYS.
        readers: scopes of which one is needed to see it over the API.
        sealed: stored as a blob of storage.crypto, under the key of the row's subject.
        on_erasure: ``null`` empties the column, ``token`` puts a random value in its place (where it is part of
            a key), ``row`` removes the whole row, ``keep`` leaves it because it names nobody any more.
    """

    kind: Kind
    purpose: str
    retention: str
    readers: frozenset[str]
    sealed: bool
    on_erasure: OnErasure


@dataclass(frozen=True)
class SubjectLink:
    """Whose data the rows of a table are: ``column`` holds the id of a thread, contact or account, or the row is the
    subject itself (``id``). With ``via``, ``column`` refers to that table, whose own link says it.
    """

    kind: SubjectKind
    column: str
    via: str | None = None


@dataclass(frozen=True)
class PersonalColumn:
    """An entry of the registry."""

    table: str
    column: str
    personal: Personal
    subject: SubjectLink

    @property
    def name(self) -> str:
        """``table.column``: what a sealed value is bound to."""
        return f"{self.table}.{self.column}"


def personal(
    kind: Kind,
    *,
    purpose: str,
    retention: str,
    readers: tuple[str, ...] = (),
    sealed: bool = True,
    on_erasure: OnErasure = "null",
) -> dict[str, Any]:
    """For ``mapped_column(info=...)``.

    Raises:
        KeyError: no such purpose or retention.
    """
    PURPOSES[purpose], RETENTION_DAYS[retention]
    return {"personal": Personal(kind, purpose, retention, frozenset(readers), sealed, on_erasure)}


def plain() -> dict[str, Any]:
    """For ``mapped_column(info=...)``: looked at, and no personal data."""
    return {"personal": None}


@cache
def columns() -> tuple[PersonalColumn, ...]:
    """All columns with personal data, in the order of tables and columns."""
    return tuple(_walk())


def sealed_under_tenant_key(platform: bool) -> list[tuple[str, str]]:
    """(table, column) of what is sealed directly under a tenant's key: the tenant's own secrets, and, for the platform
    (the nil tenant), those of accounts.
    """
    return sealed_columns("tenant") + (sealed_columns("account") if platform else [])


def sealed_columns(subject: SubjectKind | None = None) -> list[tuple[str, str]]:
    """(table, column) of what is sealed, of all or under one kind of subject's key."""
    return [
        (entry.table, entry.column)
        for entry in columns()
        if entry.personal.sealed and (subject is None or entry.subject.kind == subject)
    ]


def entries_of(table: str) -> list[PersonalColumn]:
    return [entry for entry in columns() if entry.table == table]


def unmarked() -> list[str]:
    """Columns that could hold text and say neither ``personal`` nor ``plain``; the lint's finding."""
    texts = (Text, JSON, LargeBinary, ARRAY)
    return [
        f"{mapper.local_table.name}.{column.name}"  # type: ignore[attr-defined]  # a mapped table has a name
        for mapper in _mappers()
        for column in mapper.columns
        if isinstance(column.type, texts) and "personal" not in column.info
    ]


def _walk() -> Iterator[PersonalColumn]:
    for mapper in _mappers():
        link = getattr(mapper.class_, "__subject__", None)
        table = str(mapper.local_table.name)  # type: ignore[attr-defined]  # a mapped table has a name
        for column in mapper.columns:
            found = column.info.get("personal")
            if found is None:
                continue
            if link is None:
                raise TypeError(f"{table}.{column.name} is personal data, but {table} does not say whose")
            yield PersonalColumn(table, column.name, found, link)


def _mappers() -> list[Mapper[Any]]:
    # Here and not above: the models import this module for their marks.
    from storage.models.all import Base

    return sorted(Base.registry.mappers, key=lambda mapper: str(mapper.local_table.name))  # type: ignore[attr-defined]  # as above
