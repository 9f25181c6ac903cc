"""`python -m server keys` as an operator meets it: real processes over the test's database."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from server.__main__ import _keys
from storage.crypto.cipher import Subject
from storage.crypto.masters import StaticMasters, parse_entries
from storage.settings import StorageSettings
from tests.storage.crypto.world import World, close, make_world

FIRST, SECOND = (f"mk-{name}:{'A' * 42}{last}=" for name, last in (("1", "A"), ("2", "E")))
Run = Callable[..., "subprocess.CompletedProcess[str]"]

_MAIN = """
import argparse, asyncio, sys
from server.__main__ import _keys
from server.commands import keys
from server.telemetry import configure_logging
from storage.errors import AppError
configure_logging("WARNING", sys.stderr)  # as server.commands.dispatch does
parser = argparse.ArgumentParser(prog="keys")
_keys(parser)
try:
    sys.exit(asyncio.run(keys.run(parser.parse_args())))
except AppError as error:
    print(f"error: {error.message}", file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
async def world(storage_settings: StorageSettings, tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(storage_settings, tmp_path / "files", StaticMasters(parse_entries([FIRST])))
    yield made
    await close(made)


@pytest.fixture
def run(storage_settings: StorageSettings, tmp_path: Path) -> Run:
    """Run the command; keywords are settings."""
    assert storage_settings.database_url is not None
    assert storage_settings.secret_key is not None
    base = {
        **os.environ,
        "DATABASE_URL": storage_settings.database_url.get_secret_value(),
        "SECRET_KEY": storage_settings.secret_key.get_secret_value(),
        "SECRETARY_DATA": str(tmp_path),
        "MASTER_KEYS": FIRST,
    }

    def run_(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", _MAIN, *arguments],
            env={**base, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run_


async def seal(world: World, *subjects: Subject) -> list[bytes]:
    async with world.database.tenant_session(world.tenant) as session:
        return [await session.cipher.seal("notes.text", uuid4(), subject, "x") for subject in subjects]


async def test_status_and_the_rotation_of_the_master_key(world: World, run: Run) -> None:
    await seal(world, Subject.thread(uuid4()))
    status = run("status")
    assert (status.returncode, status.stderr) == (0, "")
    assert "current master key  mk-1" in status.stdout
    assert "active              2" in status.stdout
    both = f"{SECOND},{FIRST}"
    assert "mk-1  (run keys rotate-master)" in run("status", MASTER_KEYS=both).stdout
    rotated = run("rotate-master", MASTER_KEYS=both)
    assert rotated.returncode == 0
    assert "1 keys wrapped anew. Everything is under mk-2." in rotated.stdout
    assert "1/1" in rotated.stdout
    assert run("status", MASTER_KEYS=SECOND).returncode == 0
    lost = run("status", MASTER_KEYS=FIRST)
    assert lost.returncode == 1
    assert "error: The master key 'mk-2' is missing" in lost.stderr


async def test_a_tenant_gets_a_new_key(world: World, run: Run) -> None:
    await seal(world, Subject.thread(uuid4()), Subject.tenant())
    done = run("rotate-tenant", "acme")
    assert done.returncode == 0
    assert "1 keys, values and files moved, 0 old keys given up." in done.stdout
    assert "An old key is kept for an hour" in done.stdout
    rows = await world.rows("select count(*) from data_keys where subject_kind = 'tenant'")
    assert rows[0][0] == 2
    unknown = run("rotate-tenant", "nobody")
    assert (unknown.returncode, unknown.stderr) == (1, "error: No tenant is called 'nobody'.\n")


async def test_a_restored_backup_is_cleaned_again(world: World, run: Run, tmp_path: Path) -> None:
    gone, kept = Subject.thread(uuid4()), Subject.thread(uuid4())
    blobs = await seal(world, gone, kept)
    (backup,) = await world.rows("select id, wrapped from data_keys where subject_id = :id", id=gone.id)
    async with world.database.tenant_session(world.tenant) as session:
        assert await session.cipher.destroy([gone]) == [backup.id]
    export = run("export-tombstones")
    assert export.returncode == 0
    (line,) = export.stdout.splitlines()
    assert json.loads(line)["keys"] == [str(backup.id)]
    await world.rows(  # the restore
        "update data_keys set wrapped = :wrapped, destroyed_at = null where id = :id returning 1",
        wrapped=backup.wrapped,
        id=backup.id,
    )
    path = tmp_path / "list.jsonl"
    path.write_text(export.stdout)
    first, second = run("replay-tombstones", str(path)), run("replay-tombstones", str(path))
    assert "1 tombstones read, 1 keys destroyed again." in first.stdout
    assert "1 tombstones read, 0 keys destroyed again." in second.stdout
    assert (first.returncode, second.returncode) == (0, 0)
    alive = await world.rows(
        "select subject_id from data_keys where wrapped is not null and subject_kind = 'thread'"
    )
    assert [row.subject_id for row in alive] == [kept.id]
    assert len(blobs) == 2


async def test_a_damaged_list_is_reported_after_the_rest_was_done(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text('{"tenant":\n')
    damaged = run("replay-tombstones", str(path))
    assert (damaged.returncode, damaged.stderr) == (1, f"{path}: line 1 is no tombstone\n")
    missing = run("replay-tombstones", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert f"error: {tmp_path / 'none'} cannot be read" in missing.stderr


def test_a_new_key_is_printed_alone_and_works(run: Run) -> None:
    made = run("generate", MASTER_KEYS="")
    assert made.returncode == 0
    assert list(parse_entries(made.stdout.splitlines())) == [made.stdout.split(":")[0]]
    assert "restart every process" in made.stderr


def test_a_local_folder_gets_its_key(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "kms"
    made = run("generate", MASTER_KEYS="", MASTER_KMS=f"local:{folder}")
    assert (folder / "current").read_text().strip() == made.stdout.split()[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "the following arguments are required: ACTION"),
        (("burn",), "invalid choice: 'burn'"),
        (("rotate-tenant",), "the following arguments are required: SLUG"),
        (("replay-tombstones",), "the following arguments are required: FILE"),
    ],
)
def test_wrong_arguments_are_explained(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    _keys(parser)
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(arguments)
    assert exit_.value.code == 2
    assert says in capsys.readouterr().err


def test_without_a_master_key_the_command_says_so(run: Run) -> None:
    refused = run("status", MASTER_KEYS="")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: Exactly one of MASTER_KEYS, MASTER_KEY_FILE and MASTER_KMS")
