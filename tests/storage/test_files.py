"""The encrypted file store: whole files come back, and nothing else does."""

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from storage.crypto.cipher import LocalSealer
from storage.crypto.envelope import DataKey, Tampered
from storage.errors import NotFound
from storage.files import CHUNK, FileStore
from storage.tenancy import TenantContext

KEY = DataKey(UUID(int=5), bytes(range(32)))
TENANT, OTHER = (TenantContext(UUID(int=number), actor="user:test") for number in (1, 2))
SEALER, FOREIGN = LocalSealer(TENANT.tenant_id, KEY), LocalSealer(OTHER.tenant_id, KEY)
HEADER, STEP = 33, CHUNK + 16


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files")


def path_of(tmp_path: Path, context: TenantContext, file_id: UUID) -> Path:
    return tmp_path / "files" / str(context.tenant_id) / file_id.hex[-2:] / str(file_id)


async def content(store: FileStore, file_id: UUID, context: TenantContext = TENANT) -> bytes:
    sealer = SEALER if context is TENANT else FOREIGN
    return b"".join([chunk async for chunk in store.read_sealed(context, sealer, file_id)])


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7])
async def test_a_file_comes_back(store: FileStore, tmp_path: Path, size: int) -> None:
    data, file_id = os.urandom(size), uuid4()
    stored = await store.put_sealed(TENANT, SEALER, file_id, data)
    assert (stored.size, stored.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert await content(store, file_id) == data
    path = path_of(tmp_path, TENANT, file_id)
    chunks = max(1, -(-size // CHUNK))
    assert path.stat().st_size == HEADER + size + 16 * chunks
    assert path.stat().st_mode & 0o777 == 0o600
    assert {folder.stat().st_mode & 0o777 for folder in (path.parent, path.parent.parent)} == {0o700}
    await store.put_sealed(TENANT, SEALER, file_id, pieces(data, 10_007))  # replaced, in other pieces
    assert await content(store, file_id) == data


async def test_nothing_of_it_stands_on_the_disk(store: FileStore, tmp_path: Path) -> None:
    file_id = uuid4()
    await store.put_sealed(TENANT, SEALER, file_id, b"canary " * 30_000)
    assert b"canary" not in path_of(tmp_path, TENANT, file_id).read_bytes()
    assert list((tmp_path / "files" / ".writing").iterdir()) == []


async def refused(store: FileStore, path: Path, file_id: UUID, changed: bytes) -> None:
    path.write_bytes(changed)
    with pytest.raises(Tampered):
        await content(store, file_id)


async def test_every_change_is_found(store: FileStore, tmp_path: Path) -> None:
    file_id = uuid4()
    await store.put_sealed(TENANT, SEALER, file_id, os.urandom(3 * CHUNK + 5))
    path = path_of(tmp_path, TENANT, file_id)
    good = path.read_bytes()
    head, one, two, three, four = (
        good[:HEADER],
        *(good[HEADER + at * STEP : HEADER + (at + 1) * STEP] for at in range(4)),
    )
    assert len(four) == 21
    for changed in (
        head + one + two + three,  # cut at a chunk's end
        head + one,
        head,
        good[:-1],
        good[: HEADER - 1],
        b"",
        head + two + one + three + four,  # swapped
        head + one + three + four,  # one left out
        head + one + one + two + three + four,  # one twice
        good + b"\0",
        good + four,
        head + four,
    ):
        await refused(store, path, file_id, changed)
    for at in (*range(HEADER), HEADER, HEADER + STEP, len(good) - 1):
        await refused(store, path, file_id, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    path.write_bytes(good)
    assert len(await content(store, file_id)) == 3 * CHUNK + 5


async def test_files_cannot_be_swapped(store: FileStore, tmp_path: Path) -> None:
    first, second = uuid4(), uuid4()
    await store.put_sealed(TENANT, SEALER, first, b"first")
    await store.put_sealed(TENANT, SEALER, second, b"second")
    await store.put_sealed(OTHER, FOREIGN, first, b"foreign")
    mine = path_of(tmp_path, TENANT, first)
    await refused(store, mine, first, path_of(tmp_path, TENANT, second).read_bytes())
    await refused(store, mine, first, path_of(tmp_path, OTHER, first).read_bytes())


async def test_a_broken_upload_leaves_the_old_file_and_no_litter(store: FileStore, tmp_path: Path) -> None:
    file_id = uuid4()
    await store.put_sealed(TENANT, SEALER, file_id, b"old")

    async def breaks() -> AsyncIterator[bytes]:
        yield bytes(2 * CHUNK)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.put_sealed(TENANT, SEALER, file_id, breaks())
    assert await content(store, file_id) == b"old"
    assert list((tmp_path / "files" / ".writing").iterdir()) == []


async def test_files_are_deleted_one_by_one_and_by_tenant(store: FileStore) -> None:
    ids = [uuid4() for _ in range(4)]
    for file_id in ids:
        await store.put_sealed(TENANT, SEALER, file_id, b"x")
    await store.put_sealed(OTHER, FOREIGN, ids[0], b"kept")
    assert (await store.delete(TENANT, ids[0]), await store.delete(TENANT, ids[0])) == (True, False)
    with pytest.raises(NotFound):
        await content(store, ids[0])
    assert await store.delete_tenant(TENANT) == 3
    assert await store.delete_tenant(TENANT) == 0
    assert await content(store, ids[0], OTHER) == b"kept"


async def test_files_move_to_another_key(store: FileStore) -> None:
    data, ids = os.urandom(CHUNK + 1), [uuid4(), uuid4()]
    for file_id in ids:
        await store.put_sealed(TENANT, SEALER, file_id, data)
    new = LocalSealer(TENANT.tenant_id, DataKey(UUID(int=6), os.urandom(32)))
    await store.reseal(TENANT, SEALER, new, ids[0])
    assert await store.sealed_under(TENANT, KEY.id) == [ids[1]]
    assert await store.sealed_under(TENANT, new.key.id) == [ids[0]]
    assert b"".join([chunk async for chunk in store.read_sealed(TENANT, new, ids[0])]) == data
    with pytest.raises(Tampered):
        await content(store, ids[0])


async def test_what_a_killed_process_left_is_cleared_by_age(store: FileStore, tmp_path: Path) -> None:
    await store.put_sealed(TENANT, SEALER, uuid4(), b"x")
    old, fresh = (tmp_path / "files" / ".writing" / name for name in ("old", "fresh"))
    old.touch()
    os.utime(old, (1, 1))
    fresh.touch()
    assert await store.clear_temporary(3600) == 1
    assert not old.exists()
    assert fresh.exists()
