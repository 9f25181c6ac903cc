"""Writes down, outside the database, where each tenant's audit chain ends. Whoever could rewrite the whole chain, a superuser, would
have to rewrite these lines too: keep a copy where they cannot (the log has them as well).
"""

import asyncio
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import structlog

from storage.repositories import audit, directory
from storage.tenancy import Database, TenantContext

log = structlog.get_logger(__name__)

FILE_NAME = "audit-anchors.jsonl"


async def anchor_all(database: Database, folder: Path) -> int:
    """Append the ends of all chains that have moved; their number."""
    async with database.platform_session("audit anchors: the chains of all tenants") as session:
        tenants = await directory.tenant_ids(session)
    known = {tenant: places[-1] for tenant, places in read_anchors(folder).items()}
    lines = []
    for tenant_id in tenants:
        async with database.tenant_session(TenantContext(tenant_id, "job:anchors")) as session:
            seq, digest = await audit.head(session)
        if seq and known.get(tenant_id) != (seq, digest):
            line = {"tenant": str(tenant_id), "seq": seq, "hash": digest.hex()}
            log.info("audit_anchor", **line)
            lines.append(json.dumps({**line, "at": datetime.now(UTC).isoformat(timespec="seconds")}))
    if lines:
        await asyncio.to_thread(_append, folder / FILE_NAME, lines)
    return len(lines)


def read_anchors(folder: Path) -> dict[UUID, Sequence[tuple[int, bytes]]]:
    """(place, hash) by tenant, in the order in which they were written; a line that was cut off by a crash is left out."""
    found: dict[UUID, list[tuple[int, bytes]]] = {}
    try:
        lines = (folder / FILE_NAME).read_text().splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
            found.setdefault(UUID(entry["tenant"]), []).append((entry["seq"], bytes.fromhex(entry["hash"])))
        except (ValueError, KeyError, TypeError):
            log.warning("audit_anchor_unreadable")
    return dict(found)


def _append(path: Path, lines: list[str]) -> None:
    with path.open("a") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
