"""Rotation while others write, broken off anywhere, killed with -9: every value opens before, between and after."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from server.jobs import keys as jobs
from server.jobs.keys import KeyRotation
from storage.crypto.cipher import Subject
from storage.crypto.envelope import key_id_of
from storage.crypto.masters import StaticMasters
from storage.repositories import key_rotation
from storage.sql import text
from storage.tenancy import PLATFORM_TENANT, TenantContext
from tests.storage.crypto.world import FIRST, SECOND, World

ROW = uuid4()
NO_GRACE = timedelta(0)


class Broken(Exception):
    """A rotation that was broken off."""


def nothing(_done: int, _total: int) -> None:
    """No bar."""


def rotation(world: World, grace: timedelta = NO_GRACE) -> KeyRotation:
    return KeyRotation(world.database, world.keyring, world.files, grace=grace)


async def active_key(world: World) -> UUID:
    (row,) = await world.rows("select id from data_keys where subject_kind = 'tenant' and retired_at is null")
    return UUID(str(row.id))


async def fill(world: World, threads: int = 5) -> list[bytes]:
    """Blobs of ``notes.text`` under as many threads' keys."""
    async with world.database.tenant_session(world.tenant) as session:
        return [
            await session.cipher.seal("notes.text", ROW, Subject.thread(uuid4()), f"text {number}")
            for number in range(threads)
        ]


async def opens(world: World, blobs: list[bytes]) -> None:
    """In a process that knows nothing yet."""
    fresh = world.restarted()
    async with fresh.database.tenant_session(fresh.tenant) as session:
        rows = [(ROW, blob) for blob in blobs]
        expected = [f"text {number}" for number in range(len(blobs))]
        assert await session.cipher.open_many("notes.text", rows) == expected


async def test_the_master_key_is_replaced_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BATCH", 2)
    blobs = await fill(world)
    for context in (world.tenant, world.other, TenantContext(PLATFORM_TENANT, actor="job:test")):
        async with world.database.tenant_session(context) as session:
            await session.cipher.blind("email", "x")
            await session.cipher.seal("notes.text", ROW, Subject.tenant(), "x")
    both = world.restarted(StaticMasters({**SECOND, **FIRST}))
    seen: list[tuple[int, int]] = []
    assert await rotation(both).rotate_master(lambda done, total: seen.append((done, total))) == 6
    assert seen == [(0, 6), (2, 6), (4, 6), (6, 6)]
    assert await rotation(both).rotate_master(nothing) == 0
    await opens(world.restarted(StaticMasters(SECOND)), blobs)


async def test_a_master_rotation_that_was_broken_off_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 1)
    blobs = await fill(world)
    async with world.database.tenant_session(world.tenant) as session:
        await session.cipher.blind("email", "x")

    def stop(done: int, _total: int) -> None:
        if done == 1:
            raise Broken

    both = world.restarted(StaticMasters({**SECOND, **FIRST}))
    with pytest.raises(Broken):
        await rotation(both).rotate_master(stop)
    await opens(both, blobs)
    assert await rotation(both).rotate_master(nothing) == 1
    await opens(world.restarted(StaticMasters(SECOND)), blobs)


async def test_a_tenant_gets_a_new_key_and_everything_moves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 2)
    blobs, secrets = await fill(world), await world.add_channels(5)
    old, file_id = await active_key(world), uuid4()
    async with world.database.tenant_session(world.tenant) as session:
        await world.files.put(world.tenant, session.cipher, file_id, b"content", Subject.tenant())
    seen: list[tuple[int, int]] = []
    result = await rotation(world).rotate_tenant(
        world.tenant.tenant_id, lambda done, total: seen.append((done, total))
    )
    assert result == jobs.TenantRotation(moved=11, given_up=1, kept=0)
    assert [done for done, _ in seen] == [0, 2, 4, 5, 7, 9, 10, 11]
    assert {total for _, total in seen} == {11}
    new = await active_key(world)
    assert new != old
    fresh = world.restarted()
    assert await fresh.read_channels() == (secrets, {new})
    async with fresh.database.tenant_session(fresh.tenant) as session:
        content = await fresh.files.read(fresh.tenant, session.cipher, file_id)
        assert content is not None
        assert b"".join([chunk async for chunk in content]) == b"content"
    await opens(world, blobs)
    rows = await world.rows("select wrapped, destroyed_at from data_keys where id = :id", id=old)
    assert [tuple(row) for row in rows] == [(None, None)]


async def test_the_old_key_stays_for_its_time_of_grace(world: World) -> None:
    secrets = await world.add_channels(1)
    old = await active_key(world)
    late = world.restarted()  # a process that goes on with the old key from its cache
    async with late.database.tenant_session(late.tenant) as session:
        assert (await session.cipher.local(Subject.tenant())).key.id == old
    patient = rotation(world, timedelta(hours=1))
    result = await patient.rotate_tenant(world.tenant.tenant_id, nothing)
    assert (result.moved, result.given_up, result.kept) == (1, 0, 1)
    secrets |= await late.add_channels(2)
    assert (await late.read_channels())[1] == {old, await active_key(world)}
    again = await patient.rotate_tenant(world.tenant.tenant_id, nothing)  # goes on, and begins no other one
    assert (again.moved, again.kept) == (2, 1)
    assert await patient.finish_all() == 0
    secrets |= await late.add_channels(1)
    assert await rotation(world).finish_all() == 1
    assert await world.restarted().read_channels() == (secrets, {await active_key(world)})


async def test_a_key_that_is_still_wanted_somewhere_is_not_given_up(world: World) -> None:
    await world.add_channels(1)
    async with world.database.tenant_session(world.tenant) as session:
        blob = await session.cipher.seal("contacts.name", ROW, Subject.tenant(), "Ada")
        await session.execute(
            text("insert into contacts (id, name) values (:id, :name)"), {"id": ROW, "name": blob}
        )
    result = await rotation(world).rotate_tenant(world.tenant.tenant_id, nothing)
    assert (result.given_up, result.kept) == (0, 1)
    async with world.database.tenant_session(world.tenant) as session:
        assert await session.cipher.open("contacts.name", ROW, blob) == "Ada"


async def test_the_platforms_key_moves_the_secrets_of_accounts(world: World) -> None:
    async with world.database.identity_session() as session:
        blob = await session.cipher.seal("accounts.totp_secret", ROW, Subject.tenant(), "JBSWY3DP")
        await session.execute(
            text(
                "insert into accounts (id, email, name, totp_secret) values (:id, 'a@example.org', 'A', :blob)"
            ),
            {"id": ROW, "blob": blob},
        )
    result = await rotation(world).rotate_tenant(PLATFORM_TENANT, nothing)
    assert (result.moved, result.given_up) == (1, 1)
    async with world.database.identity_session() as session:
        moved = bytes(
            await session.scalar(text("select totp_secret from accounts where id = :id"), {"id": ROW})
        )
        assert key_id_of(moved) != key_id_of(blob)
        assert await session.cipher.open("accounts.totp_secret", ROW, moved) == "JBSWY3DP"


@pytest.mark.parametrize("stop_at", range(6))
async def test_a_tenant_rotation_may_be_broken_off_between_any_two_batches(
    world: World, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    monkeypatch.setattr(jobs, "BATCH", 2)
    blobs, secrets = await fill(world), await world.add_channels(5)
    calls = iter(range(100))

    def stop(_done: int, _total: int) -> None:
        if next(calls) == stop_at:
            raise Broken

    with pytest.raises(Broken):
        await rotation(world).rotate_tenant(world.tenant.tenant_id, stop)
    await opens(world, blobs)
    assert (await world.restarted().read_channels())[0] == secrets
    assert (await rotation(world).rotate_tenant(world.tenant.tenant_id, nothing)).given_up == 1
    await opens(world, blobs)
    assert await world.restarted().read_channels() == (secrets, {await active_key(world)})


@pytest.mark.parametrize("place", ["retire", "rewrap", "write_sealed", "give_up"])
async def test_a_tenant_rotation_may_be_broken_off_inside_a_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    blobs, secrets = await fill(world), await world.add_channels(3)
    original = getattr(key_rotation, place)

    async def breaks(*arguments: object) -> None:
        await original(*arguments)
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(key_rotation, place, breaks)
        with pytest.raises(Broken):
            await rotation(world).rotate_tenant(world.tenant.tenant_id, nothing)
    await opens(world, blobs)
    assert (await world.restarted().read_channels())[0] == secrets
    result = await rotation(world).rotate_tenant(world.tenant.tenant_id, nothing)
    assert result.given_up == 1
    await opens(world, blobs)


async def test_two_rotations_at_once_make_one_new_key(world: World) -> None:
    await fill(world)
    other = world.restarted()
    tenant = world.tenant.tenant_id
    await asyncio.gather(
        rotation(world, timedelta(hours=1)).rotate_tenant(tenant, nothing),
        rotation(other, timedelta(hours=1)).rotate_tenant(tenant, nothing),
    )
    (row,) = await world.rows("select count(*) from data_keys where subject_kind = 'tenant'")
    assert row[0] == 2


async def test_writers_go_on_while_the_key_is_replaced(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BATCH", 3)
    await world.add_channels(10)
    writers = [world.restarted() for _ in range(2)]
    stop = asyncio.Event()
    secrets = dict((await world.read_channels())[0])

    async def write(process: World) -> None:
        while not stop.is_set():
            secrets.update(await process.add_channels(1))

    tasks = [asyncio.create_task(write(process)) for process in writers]
    for _ in range(3):
        await rotation(world, timedelta(hours=1)).rotate_tenant(world.tenant.tenant_id, nothing)
    stop.set()
    await asyncio.gather(*tasks)
    assert len(secrets) > 12
    assert (await rotation(world).rotate_tenant(world.tenant.tenant_id, nothing)).given_up == 1
    assert await world.restarted().read_channels() == (secrets, {await active_key(world)})


_KILLED = """
import asyncio, os, signal, sys
from datetime import timedelta
from pathlib import Path
from uuid import UUID
from server.jobs import keys as jobs
from storage.crypto.keyring import Keyring
from storage.crypto.masters import StaticMasters
from storage.files import FileStore
from storage.settings import StorageSettings
from storage.tenancy import Database

tenant, folder, at = UUID(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
jobs.BATCH = 2

def die(done, total):
    if done >= at:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    keyring = Keyring(StaticMasters({"mk-1": bytes([1]) * 32}))
    database = Database(StorageSettings(), keyring, "killed")
    await jobs.KeyRotation(database, keyring, FileStore(folder), grace=timedelta(0)).rotate_tenant(tenant, die)

asyncio.run(main())
"""


async def test_a_rotation_that_is_killed_goes_on(world: World, tmp_path: Path) -> None:
    blobs, secrets = await fill(world), await world.add_channels(5)
    assert world.settings.database_url is not None
    assert world.settings.secret_key is not None
    environment = {
        **os.environ,
        "DATABASE_URL": world.settings.database_url.get_secret_value(),
        "SECRET_KEY": world.settings.secret_key.get_secret_value(),
    }
    for at in ("2", "1", "3"):
        arguments = [str(world.tenant.tenant_id), str(tmp_path / "files"), at]
        process = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", _KILLED, *arguments], env=environment, check=False
        )
        assert process.returncode == -signal.SIGKILL
        await opens(world, blobs)
        assert (await world.restarted().read_channels())[0] == secrets
    result = await rotation(world).rotate_tenant(world.tenant.tenant_id, nothing)
    assert (result.given_up, result.kept) == (1, 0)
    assert result.moved > 0
    await opens(world, blobs)
    assert await world.restarted().read_channels() == (secrets, {await active_key(world)})
