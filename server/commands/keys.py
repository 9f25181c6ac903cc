"""`python -m server keys`: what keys there are, new ones, and what a restored backup needs."""

import argparse
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from server.commands.environment import adopt_environment
from server.deps import FILES_FOLDER
from server.jobs.keys import KeyRotation
from storage.crypto.keyring import Keyring
from storage.crypto.kms import LocalKms, kms_from
from storage.crypto.masters import masters_from, new_master_key, verify_masters
from storage.crypto.settings import CryptoSettings
from storage.crypto.tombstones import Tombstone, read_tombstones
from storage.errors import ValidationFailed
from storage.files import FileStore
from storage.repositories import directory, keys
from storage.settings import StorageSettings
from storage.tenancy import Database, TenantContext


async def run(arguments: argparse.Namespace) -> int:
    """Carry an action out; returns the exit code.

    Raises:
        ConfigurationError, MasterKeyMissing, UpstreamUnavailable: the keys cannot be used as configured.
        NotFound, ValidationFailed: the argument is wrong.
    """
    match arguments.action:
        case "status":
            return await status()
        case "generate":
            return generate()
        case "rotate-master":
            return await rotate_master()
        case "rotate-tenant":
            return await rotate_tenant(arguments.tenant)
        case "export-tombstones":
            return await export_tombstones()
        case "replay-tombstones":
            return await replay_tombstones(arguments.file)
    raise ValidationFailed(f"There is no action {arguments.action!r}. See: python -m server keys --help")


def generate() -> int:
    """A new master key. It is shown once and kept nowhere, unless a local key folder is configured."""
    settings = CryptoSettings()
    kms = kms_from(settings) if settings.master_kms else None
    if isinstance(kms, LocalKms):
        print(f"{kms.generate()} is the current master key now. Then: python -m server keys rotate-master")
    elif kms is not None:
        print("AWS KMS makes its keys itself: point the alias to another key, then run keys rotate-master.")
    else:
        print(new_master_key())
        print(
            "Put it first into MASTER_KEYS or MASTER_KEY_FILE and leave the others behind it; restart every process; then run "
            "`python -m server keys rotate-master`. Keep a copy apart from the database's backups.",
            file=sys.stderr,
        )
    return 0


async def status() -> int:
    """Counts, and whether everything can be opened."""
    async with _opened() as (database, keyring):
        async with database.platform_session("keys status: it is about all tenants") as session:
            by_master, totals = await keys.count_by_master(session), await keys.totals(session)
        current = await keyring.masters.current_id()
        print(f"current master key  {current}")
        for master_id, count in by_master.items():
            remark = "" if master_id == current else "  (run keys rotate-master)"
            print(f"  wraps {count:6}      {master_id}{remark}")
        for state, count in totals.items():
            print(f"{state:18}  {count}")
        async with database.platform_session("keys status: whether the master keys open them") as session:
            await verify_masters(session, keyring.masters)
    print("Every master key in use is there, and opens what it wrapped.")
    return 0


async def rotate_master() -> int:
    """Wrap anew; can be broken off and repeated."""
    async with _opened() as (database, keyring):
        with _bar() as bar:
            count = await _rotation(database, keyring).rotate_master(_moves(bar, "keys of tenants"))
        current = await keyring.masters.current_id()
    print(f"{count} keys wrapped anew. Everything is under {current}.")
    return 0


async def rotate_tenant(slug: str) -> int:
    """A new key for a tenant; can be broken off and repeated."""
    async with _opened() as (database, keyring):
        async with database.platform_session("rotate-tenant: which tenant is meant") as session:
            tenant = await directory.tenant_by_slug(session, slug)
        with _bar() as bar:
            result = await _rotation(database, keyring).rotate_tenant(tenant.id, _moves(bar, slug))
    print(f"{result.moved} keys, values and files moved, {result.given_up} old keys given up.")
    if result.kept:
        print(
            "An old key is kept for an hour, for processes that still have it. A worker ends the rotation then."
        )
    return 0


async def export_tombstones() -> int:
    """All destructions that the database knows of."""
    async with (
        _opened() as (database, _),
        database.platform_session("export-tombstones: they are of all tenants") as session,
    ):
        for tenant_id, at, key_ids in await keys.destroyed(session):
            sys.stdout.write(Tombstone(tenant_id, tuple(key_ids), at).line())
    return 0


async def replay_tombstones(path: Path) -> int:
    """Destroy keys that a restored backup has brought back; exit 1 where a line could not be read."""
    try:
        found, unreadable = read_tombstones(path.read_text().splitlines())  # noqa: ASYNC240  # nobody else waits
    except (OSError, UnicodeDecodeError) as error:
        raise ValidationFailed(f"{path} cannot be read: {error}") from error
    destroyed = 0
    async with _opened() as (database, _):
        with _bar() as bar:
            moves = _moves(bar, "tombstones")
            for number, stone in enumerate(found, 1):
                context = TenantContext(stone.tenant_id, actor="job:replay-tombstones")
                async with database.tenant_session(context) as session:
                    destroyed += len(await keys.destroy_ids(session, stone.tenant_id, stone.key_ids))
                moves(number, len(found))
    print(f"{len(found)} tombstones read, {destroyed} keys destroyed again.")
    for number in unreadable:
        print(f"{path}: line {number} is no tombstone", file=sys.stderr)
    return 1 if unreadable else 0


@asynccontextmanager
async def _opened() -> AsyncIterator[tuple[Database, Keyring]]:
    adopt_environment()
    settings = CryptoSettings()
    keyring = Keyring(masters_from(settings), cache_seconds=settings.key_cache_seconds)
    database = Database(StorageSettings(), keyring, "keys")
    try:
        yield database, keyring
    finally:
        await database.aclose()


def _rotation(database: Database, keyring: Keyring) -> KeyRotation:
    return KeyRotation(database, keyring, FileStore(StorageSettings().data_dir / FILES_FOLDER))


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description:40.40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )


def _moves(bar: Progress, name: str) -> Callable[[int, int], None]:
    task = bar.add_task(name, total=None)
    return lambda done, total: bar.update(task, completed=done, total=total)
