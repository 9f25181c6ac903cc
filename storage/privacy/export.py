# ruff: noqa: S608  # tables and columns come from the column registry
"""All data of one person as a ZIP (GDPR Art. 15 and 20), made as a stream: neither the archive nor a table is ever in memory whole.

``readme.txt`` in the business's language, ``data/<table>.json`` with an array of objects each, ``files/<id>/<name>``, and at the
end ``manifest.json`` with length and SHA-256 of every other entry.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.errors import NotFound
from storage.files import FileStore
from storage.privacy.stores import checkpoint_content
from storage.privacy.subjects import PersonalTable, Scope, tables
from storage.sql import text
from storage.tenancy import Database, TenantContext

FORMAT = 1
PAGE = 200
_README = {
    "en": (
        "This archive holds what {business} has stored about one person, as of {at}.\n\n"
        "data/      One file a kind of record: JSON, UTF-8, times in ISO 8601 with their offset. Fields named *_id link records.\n"
        "           In inbox_messages, direction \"in\" is what the person wrote, \"out\" what was answered.\n"
        "           turn_steps and checkpoints are working notes of the answering program;\n"
        "           names like ⟦EMAIL_1⟧ in them stand for values in pii_vault.\n"
        "files/     Files that the person sent, by the id of their record in attachments.\n"
        "manifest.json   Length and SHA-256 of every file here.\n\n"
        "Request: {request}\n"
    ),
    "de": (
        "Dieses Archiv enthält, was {business} über eine Person gespeichert hat, Stand {at}.\n\n"
        "data/      Eine Datei je Art von Datensatz: JSON, UTF-8, Zeiten nach ISO 8601 mit Zeitzone.\n"
        "           Felder namens *_id verbinden Datensätze.\n"
        "           In inbox_messages steht direction \"in\" für das, was die Person schrieb, \"out\" für die Antworten. turn_steps und\n"
        "           checkpoints sind Arbeitsnotizen des antwortenden Programms; Namen wie ⟦EMAIL_1⟧ darin stehen für Werte in pii_vault.\n"
        "files/     Dateien, die die Person geschickt hat, nach der Kennung ihres Datensatzes in attachments.\n"
        "manifest.json   Länge und SHA-256 jeder Datei in diesem Archiv.\n\n"
        "Anfrage: {request}\n"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ExportOf:
    """What an archive says about itself.

    Attributes:
        language: of the readme (ISO 639-1); English where there is no text in it.
    """

    request_id: UUID
    business: str
    language: str
    at: datetime


@dataclass
class _Manifest:
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


class _Sink(io.RawIOBase):
    """Where the archive is written to; emptied after each piece. It cannot seek, so the archive is made without."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._pending += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._pending)
        self._pending.clear()
        return taken


async def archive(
    database: Database, files: FileStore, context: TenantContext, scope: Scope, about: ExportOf
) -> AsyncIterator[bytes]:
    """The bytes of the archive. Each page of a table is its own transaction; no transaction is open between two pieces."""
    schema = await database.ping()
    manifest, sink = _Manifest(), _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as made:

        async def entry(path: str, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            digest, size = hashlib.sha256(), 0
            info = zipfile.ZipInfo(path, about.at.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o600 << 16
            with made.open(info, "w", force_zip64=True) as target:
                async for piece in content:
                    digest.update(piece)
                    size += len(piece)
                    target.write(piece)
                    yield sink.take()
            manifest.entries[path] = {"sha256": digest.hexdigest(), "size": size}
            yield sink.take()

        readme = _README.get(about.language, _README["en"]).format(
            business=about.business, at=about.at.isoformat(timespec="seconds"), request=about.request_id
        )
        async for piece in entry("readme.txt", _once(readme)):
            yield piece
        for table in sorted(tables(), key=lambda table: table.name):
            rows = _rows(database, context, scope, table)
            async for piece in entry(f"data/{table.name}.json", _array(rows, table.name, manifest)):
                yield piece
        remembered = _checkpoints(database, context, scope)
        async for piece in entry("data/checkpoints.json", _array(remembered, "checkpoints", manifest)):
            yield piece
        for table in tables():
            if table.holds_files:
                async for path, content in _contents(database, files, context, scope, table, manifest):
                    async for piece in entry(path, content):
                        yield piece
        head = {
            "format": FORMAT,
            "schema": schema,
            "request": str(about.request_id),
            "business": about.business,
            "contact": str(scope.contact_id),
            "made_at": about.at.isoformat(),
            "counts": manifest.counts,
            "missing_files": manifest.missing,
            "entries": manifest.entries,
        }
        async for piece in entry("manifest.json", _once(json.dumps(head, ensure_ascii=False, indent=1))):
            yield piece
    yield sink.take()


async def _once(content: str) -> AsyncIterator[bytes]:
    yield content.encode()


async def _array(rows: AsyncIterator[dict[str, Any]], name: str, manifest: _Manifest) -> AsyncIterator[bytes]:
    count = 0
    async for row in rows:
        yield (
            ("[\n" if count == 0 else ",\n") + json.dumps(row, ensure_ascii=False, default=_plain)
        ).encode()
        count += 1
    yield b"\n]\n" if count else b"[]\n"
    manifest.counts[name] = count


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


async def _rows(
    database: Database, context: TenantContext, scope: Scope, table: PersonalTable
) -> AsyncIterator[dict[str, Any]]:
    """Rows in the order of their key, sealed columns in clear."""
    wanted = ", ".join(dict.fromkeys((*table.key, *table.shown)))
    key, after = ", ".join(table.key), ""
    position: dict[str, Any] = {}
    while True:
        async with database.tenant_session(context) as session:
            rows = (
                await session.execute(
                    text(
                        f"select {wanted} from {table.name} where {table.where} {after} order by {key} limit {PAGE}"
                    ),
                    {**scope.parameters, **position},
                )
            ).all()
            found = [dict(row._mapping) for row in rows]
            for column in table.sealed:
                if column in table.shown:
                    blobs = [(table.row_id(row), row[column]) for row in found]
                    opened = await session.cipher.open_many(f"{table.name}.{column}", blobs)
                    for row, clear in zip(found, opened, strict=True):
                        row[column] = clear
        for row in found:
            yield row
        if len(found) < PAGE:
            return
        position = {f"after_{column}": found[-1][column] for column in table.key}
        after = f"and ({key}) > ({', '.join(f':after_{column}' for column in table.key)})"


async def _checkpoints(
    database: Database, context: TenantContext, scope: Scope
) -> AsyncIterator[dict[str, Any]]:
    for thread_id in scope.threads:
        async with database.tenant_session(context) as session:
            found = await checkpoint_content(session, context, thread_id)
        for row in found:
            yield row


async def _contents(
    database: Database,
    files: FileStore,
    context: TenantContext,
    scope: Scope,
    table: PersonalTable,
    manifest: _Manifest,
) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """(path in the archive, content) of the files that a table's rows name."""
    named = next(entry.column for entry in table.columns if entry.personal.kind == "FILE")
    async for row in _rows(database, context, scope, table):
        path = f"files/{row['id']}/{safe_name(row[named] or '')}"
        try:
            async with database.tenant_session(context) as session:
                content = await files.read(context, session.cipher, row["id"])
        except NotFound:
            content = None
        if content is None:
            manifest.missing.append(str(row["id"]))
        else:
            yield path, content


def safe_name(name: str) -> str:
    """A stranger's file name as it may stand in an archive: one step of a path, and none that leads elsewhere."""
    cleaned = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]', "_", name).strip(" .")
    return cleaned[:150] or "file"
