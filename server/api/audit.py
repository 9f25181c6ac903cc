"""The record of who did what: search and export."""

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Request, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromQuery, Parameter
from litestar.response import Stream

from storage.repositories import audit
from storage.sql import Session
from storage.tenancy import Database, TenantContext

Limit = Annotated[int, Parameter(ge=1, le=500)]
# Parameter, around the whole: Litestar enforces neither msgspec's Meta on a parameter nor anything inside of ``… | None``.
Text = Annotated[str | None, Parameter(max_length=200)]
Place = Annotated[int | None, Parameter(ge=1, le=2**31 - 1)]
_PAGE = 500
_COLUMNS = (
    "seq", "created_at", "actor", "action", "object_type", "object_id", "reason", "request_id", "detail",
)  # fmt: skip


class Entry(msgspec.Struct):
    """Who (``actor``) did what (``action``) to which record, why, in which request. ``detail``: ids, counts, names of fields."""

    seq: int
    id: UUID
    created_at: datetime
    actor: str
    action: str
    object_type: str
    object_id: str
    detail: dict[str, Any]
    reason: str | None
    request_id: str | None


class ChainState(msgspec.Struct):
    """``ok``: no entry was changed, moved or removed since it was written."""

    ok: bool
    entries: int
    last: int
    head: str
    findings: list[str]


class AuditController(Controller):
    path = "/api/v1/audit"
    tags = ("Audit",)

    @get(opt={"scopes": ["audit:read"]})
    async def search(
        self,
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
        actor: FromQuery[Text] = None,
        action: FromQuery[Text] = None,
        object_type: FromQuery[Text] = None,
        object_id: FromQuery[Text] = None,
        since: FromQuery[datetime | None] = None,
        until: FromQuery[datetime | None] = None,
        before: FromQuery[Place] = None,
        limit: FromQuery[Limit] = 100,
    ) -> list[Entry]:
        """Entries, newest first. ``action`` may be the beginning of names: ``contact.`` finds ``contact.read``. ``before`` is the ``seq``
        of the last entry of the page before.
        """
        found = await audit.search(
            session,
            actor=actor,
            action=action,
            object_type=object_type,
            object_id=object_id,
            since=since,
            until=until,
            before=before,
            limit=limit,
        )
        await audit.record(session, context, "audit.read", "audit_log", "entries", count=len(found))
        return msgspec.convert(found, list[Entry])

    @get("/verify", opt={"scopes": ["audit:read"], "limit": "export"})
    async def verify(self, session: NamedDependency[Session]) -> ChainState:
        """Compute the whole chain anew."""
        verdict = await audit.verify(session)
        return ChainState(
            not verdict.findings,
            verdict.entries,
            verdict.seq,
            verdict.head.hex(),
            [f"{finding.seq}: {finding.what}" for finding in verdict.findings],
        )

    @get(
        "/export",
        opt={
            "scopes": ["audit:export"],
            "step_up": True,
            "limit": "export",
            "produces": ("application/x-ndjson", "text/csv"),
        },
    )
    async def export(
        self,
        request: Request[Any, Any, State],
        context: NamedDependency[TenantContext],
        form: FromQuery[Literal["jsonl", "csv"]] = "jsonl",
        since: FromQuery[datetime | None] = None,
        until: FromQuery[datetime | None] = None,
    ) -> Stream:
        """All entries of a time as a file, newest first."""
        database: Database = request.app.state.database
        async with database.tenant_session(context) as session:
            await audit.record(session, context, "audit.exported", "audit_log", "entries", form=form)
        types = {"jsonl": "application/x-ndjson", "csv": "text/csv"}
        return Stream(
            _export(database, context, form, since, until),
            media_type=types[form],
            headers={"content-disposition": f'attachment; filename="audit.{form}"'},
        )


async def _export(
    database: Database, context: TenantContext, form: str, since: datetime | None, until: datetime | None
) -> AsyncIterator[bytes]:
    """A page, a transaction: a long download holds none open."""
    before: int | None = None
    if form == "csv":
        yield _csv([_COLUMNS])
    while True:
        async with database.tenant_session(context) as session:
            rows = await audit.search(session, since=since, until=until, before=before, limit=_PAGE)
        if not rows:
            return
        before = rows[-1]["seq"]
        if form == "csv":
            yield _csv([[_cell(row[name]) for name in _COLUMNS] for row in rows])
        else:
            yield b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def _csv(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    """A value for a table program: one that begins like a formula gets an apostrophe (OWASP: CSV injection)."""
    text = json.dumps(value) if isinstance(value, dict) else "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
