"""`python -m server audit`: whether the record of who did what is whole."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from server.commands.environment import adopt_environment
from server.deps import make_keyring_if_given
from server.jobs.anchors import anchor_all, read_anchors
from storage.repositories import audit, directory
from storage.settings import StorageSettings
from storage.sql import text
from storage.tenancy import Database, TenantContext


async def run(arguments: argparse.Namespace) -> int:
    """Carry an action out; exit 1 where a chain is broken.

    Raises:
        NotFound: no such tenant.
    """
    adopt_environment()
    settings = StorageSettings()
    database = Database(settings, make_keyring_if_given(), "audit")
    try:
        if arguments.action == "anchor":
            print(json.dumps({"anchored": await anchor_all(database, settings.data_dir)}))
            return 0
        return await verify(database, settings.data_dir, arguments.tenant)
    finally:
        await database.aclose()


async def verify(database: Database, folder: Path, slug: str | None) -> int:
    """Check all chains, or one; a line of JSON each."""
    async with database.platform_session("audit verify: the chains of all tenants") as session:
        if slug is None:
            rows = (await session.execute(text("select id, slug from tenants order by slug"))).all()
            chosen: list[tuple[UUID, str]] = [(row.id, row.slug) for row in rows]
        else:
            info = await directory.tenant_by_slug(session, slug)
            chosen = [(info.id, info.slug)]
    anchors, broken = read_anchors(folder), 0
    for tenant_id, name in chosen:
        async with database.tenant_session(TenantContext(tenant_id, "job:audit-verify")) as session:
            verdict = await audit.verify(session, anchors.get(tenant_id, ()))
        broken += bool(verdict.findings)
        print(
            json.dumps(
                {
                    "tenant": name,
                    "ok": not verdict.findings,
                    "entries": verdict.entries,
                    "last": verdict.seq,
                    "head": verdict.head.hex(),
                    "anchors": len(anchors.get(tenant_id, ())),
                    "findings": [{"seq": one.seq, "what": one.what} for one in verdict.findings],
                    "at": datetime.now(UTC).isoformat(timespec="seconds"),
                }
            )
        )
    return 1 if broken else 0
