"""At least 100,000 probes of the walls between tenants: ``python -m tests.isolation.probes [--break policy:contacts]``.

Two full tenants, A and B; everything that B has asks for everything that A has. Each case is another one (table, column, operation, id,
setting; route, place, id, person; …), and a repetition is not counted. The figures go to build/bench/probes.json; 1 is returned where
anything leaked, or a row of A's is not what it was.
"""

import argparse
import asyncio
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from server.app import create_app
from server.deps import Parts, build_parts
from server.settings import ServerSettings
from server.telemetry import configure_logging
from storage.migrate import CHECKPOINT_TABLES
from storage.roles import libpq_url
from tests.fuzz.identities import WIDE, cloned
from tests.isolation import probe_routes, probe_stores, probe_tables
from tests.isolation.full import IDENTITY_TABLES, TENANT_TABLES, FullTenant, fill, rows_of_people, snapshot
from tests.isolation.tally import Tally
from tests.isolation.walls import broken
from tests.load.figures import FOLDER
from tests.sandbox.openai import OpenAISandbox
from tests.sandbox.server import serve
from tests.support.edge import opened
from tests.support.servers import MASTER_KEYS, TEMPLATE, Addresses, make_template, settings_for, start_servers

TABLES = (*TENANT_TABLES, *CHECKPOINT_TABLES, "tenants", *IDENTITY_TABLES)
ALL_SETTINGS = (probe_tables.WITH_B, probe_tables.EMPTY, probe_tables.UNSET)
ROLES = ("owner", "admin", "staff", "prompt_engineer", "read_only", "API key")


@dataclass(frozen=True)
class World:
    """Two tenants, the parts of the product, and a connection past all walls."""

    parts: Parts
    admin: psycopg.Connection[Any]
    app_url: str
    a: FullTenant
    b: FullTenant


@dataclass(frozen=True)
class Extent:
    """How much is tried; a test tries little.

    Attributes:
        tables: whose rows are asked for by every id.
        settings: under which settings.
        ids: how many of A's ids over HTTP.
        roles: who asks over HTTP, beside a person with all rights.
        path: only routes with this in their address.
        stores: whether Redis, files, sealed values, checkpoints and tools are tried too.
    """

    tables: tuple[str, ...] = TABLES
    settings: tuple[str, ...] = ALL_SETTINGS
    ids: int = 100_000
    roles: tuple[str, ...] = ROLES
    path: str = ""
    stores: bool = True


@asynccontextmanager
async def world_in(addresses: Addresses) -> AsyncIterator[World]:
    """A database of its own with two tenants, both in one collection of the index."""
    sandbox = OpenAISandbox()
    with (
        cloned(addresses, TEMPLATE) as name,
        serve(sandbox) as base_url,
        pytest.MonkeyPatch.context() as patch,
        psycopg.connect(addresses.database_url(name), autocommit=True) as admin,
    ):
        patch.setenv("OPENAI_BASE_URL", f"{base_url}/v1")
        patch.setenv("RATE_LIMITS", WIDE)
        patch.setattr("storage.vectors.index.SHARDS", 1)
        storage = settings_for(addresses, name)
        parts = build_parts("probes", ServerSettings(), storage)
        try:
            a = await fill(parts, sandbox, admin, "acme")
            b = await fill(parts, sandbox, admin, "globex")
            yield World(parts, admin, libpq_url(storage.role_urls().app), a, b)
        finally:
            await parts.aclose()


async def probe(world: World, extent: Extent, wall: str | None = None) -> Tally:
    """Try everything in this extent; with ``wall`` that one is taken away first."""
    tally = Tally()
    before = checksums(world)
    with broken(wall, world.admin):
        await _probe(world, extent, tally)
    for table, checksum in checksums(world).items():
        tally.judge(checksum == before[table], "rows of A are as they were", table)
    if extent.stores and wall is None:
        await _probe_beside_a(world, tally)
    return tally


async def _probe(world: World, extent: Extent, tally: Tally) -> None:
    a, b, parts = world.a, world.b, world.parts
    with psycopg.connect(world.app_url, autocommit=True) as connection:
        probe_tables.probe_ids(connection, tally, a, b, extent.tables, extent.settings)
        probe_tables.probe_inserts(connection, world.admin, tally, a, b, extent.tables)
        probe_tables.probe_tricks(connection, tally, a, b, extent.tables)
        if extent.tables == TABLES:
            probe_tables.probe_references(connection, world.admin, tally, a, b)
    app = create_app(parts)
    async with opened(app) as client:
        at = await probe_routes.door(app, client, b, extent.roles)
        ids = sorted(a.every_id)[-extent.ids :]
        if extent.ids:
            await probe_routes.probe_ids(at, tally, a, ids, extent.path)
            await probe_routes.probe_lists(at, tally, a)
        await probe_stores.probe_vectors(parts, tally, a, b)
        if not extent.stores:
            return
        await probe_routes.probe_widget(at, tally, a, b)
        await probe_stores.probe_redis(parts, tally, a, b)
        await probe_stores.probe_sealed(parts, world.admin, tally, a, b)
        await probe_stores.probe_files(parts, tally, a, b)
        await probe_stores.probe_checkpoints(parts, tally, a, b)
        await probe_stores.probe_tools(parts, tally, a, b)


async def _probe_beside_a(world: World, tally: Tally) -> None:
    """What needs A to act too, so that A's rows change; last, therefore."""
    app = create_app(world.parts)
    async with opened(app) as client:
        at = await probe_routes.door(app, client, world.b, ROLES)
        await probe_routes.probe_credentials(at, tally, world.a, world.b)
        await probe_routes.probe_idempotency(at, tally, world.a)


def checksums(world: World, *, people: bool = True) -> dict[str, str]:
    """A digest of A's rows of each table."""
    tenant_id = world.a.tenant.info.id
    tables: dict[str, Any] = dict(snapshot(world.admin, tenant_id))
    if people:
        tables |= rows_of_people(world.admin, tenant_id)
    return {table: hashlib.sha256(json.dumps(rows).encode()).hexdigest() for table, rows in tables.items()}


@contextmanager
def _servers() -> Iterator[Addresses]:
    root = Path(__file__).resolve().parents[2]
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "EMBEDDING_MODEL",
        "MAIL_URL",
        "PUBLIC_URL",
        "TRUSTED_PROXIES",
    ):
        os.environ.pop(name, None)
    os.environ |= {"MODEL_CACHE_DIR": str(root / "build" / "models"), "MASTER_KEYS": MASTER_KEYS}
    os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
    servers = start_servers()
    try:
        data = Path(tempfile.mkdtemp(prefix="data-", dir=servers.folder))
        addresses = Addresses(servers.postgres_port, servers.redis_url, servers.chroma_url, data)
        make_template(addresses)
        yield addresses
    finally:
        servers.stop()


async def _main(addresses: Addresses, wall: str | None) -> Tally:
    async with world_in(addresses) as world:
        return await probe(world, Extent(), wall)


def main() -> int:
    """0 where every wall held (or, with ``--break``, where the probes saw that one does not)."""
    parser = argparse.ArgumentParser(description="Probe the walls between two tenants.")
    parser.add_argument(
        "--break", dest="wall", help="take a wall away first: policy:<table>, filter:vectors, route"
    )
    wall: str | None = parser.parse_args().wall
    configure_logging("CRITICAL", sys.stderr)
    began = time.monotonic()
    with _servers() as addresses:
        tally = asyncio.run(_main(addresses, wall))
    report = {
        "broken": wall,
        "probes": tally.total,
        "by_kind": dict(sorted(tally.counts.items())),
        "leaks": len(tally.leaks),
        "seconds": round(time.monotonic() - began, 1),
        "first_leaks": tally.leaks[:50],
        "not_reached": dict(tally.skipped),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / ("probes.json" if wall is None else "probes-broken.json")).write_text(
        json.dumps(report, indent=1) + "\n"
    )
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return int(bool(tally.leaks)) if wall is None else int(not tally.leaks)


if __name__ == "__main__":
    sys.exit(main())
