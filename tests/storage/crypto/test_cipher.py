"""Sealing over a real transaction: keys come about once, are cached, and are gone for good once destroyed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID, uuid4

import pytest

from storage.crypto.cipher import Cipher, Subject
from storage.crypto.envelope import Tampered, key_id_of
from storage.crypto.keyring import Keyring, Owner
from storage.crypto.masters import StaticMasters, verify_masters
from storage.errors import ConfigurationError, NotFound
from storage.sql import text
from storage.tenancy import PLATFORM_TENANT, TenantContext
from tests.storage.crypto.world import FIRST, SECOND, CountingMasters, World

COLUMN = "notes.text"
ROW = uuid4()


class NoDatabase:
    """A connection that must not be used."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the database was asked: {name}")


@asynccontextmanager
async def cipher_of(world: World, context: TenantContext | None = None) -> AsyncIterator[Cipher]:
    async with world.database.tenant_session(context or world.tenant) as session:
        yield session.cipher


async def seal(world: World, subject: Subject, value: str | bytes = "Grüß Gott") -> bytes:
    async with cipher_of(world) as cipher:
        return await cipher.seal(COLUMN, ROW, subject, value)


async def test_a_value_opens_in_another_process(world: World) -> None:
    thread = Subject.thread(uuid4())
    blob = await seal(world, thread)
    again = world.restarted()
    async with cipher_of(again) as cipher:
        assert await cipher.open(COLUMN, ROW, blob) == "Grüß Gott"
        assert await cipher.open_bytes(COLUMN, ROW, blob) == "Grüß Gott".encode()
        assert await cipher.open(COLUMN, ROW, None) is None
        with pytest.raises(Tampered, match=r"notes\.title of"):
            await cipher.open("notes.title", ROW, blob)
    kinds = await world.rows(
        "select subject_kind, wrapped_by, id::text from data_keys order by subject_kind desc"
    )
    assert [row[0] for row in kinds] == ["thread", "tenant"]
    assert (kinds[0].wrapped_by, kinds[1].wrapped_by) == (kinds[1].id, "mk-1")


async def test_keys_at_hand_need_no_database(world: World) -> None:
    thread = Subject.thread(uuid4())
    blob = await seal(world, thread)
    async with cipher_of(world) as cipher:
        await cipher.open(COLUMN, ROW, blob)
        await cipher.blind("email", "ada@example.org")
    async with cipher_of(world) as cipher:  # a key is cached by the transaction after the one that made it
        index = await cipher.blind("email", "ada@example.org")
        await cipher.seal(COLUMN, ROW, Subject.tenant(), "x")
    offline = Cipher(world.keyring, world.tenant.tenant_id, NoDatabase())  # type: ignore[arg-type]  # that is the test
    assert await offline.open(COLUMN, ROW, blob) == "Grüß Gott"
    assert await offline.open_many(COLUMN, [(ROW, blob), (ROW, None)]) == ["Grüß Gott", None]
    assert key_id_of(await offline.seal(COLUMN, ROW, thread, "new")) == key_id_of(blob)
    assert await offline.blind("email", "ada@example.org") == index
    sealer = await offline.local(thread)
    assert sealer.open(COLUMN, ROW, sealer.seal(COLUMN, ROW, "sync")) == b"sync"


async def test_the_master_key_is_asked_once_for_many_at_once(world: World) -> None:
    blobs = [await seal(world, Subject.thread(uuid4()), f"text {number}") for number in range(5)]
    masters = CountingMasters(FIRST)
    again = world.restarted(masters)

    async def read(blob: bytes) -> str | None:
        async with cipher_of(again) as cipher:
            return await cipher.open(COLUMN, ROW, blob)

    assert await asyncio.gather(*map(read, blobs)) == [f"text {number}" for number in range(5)]
    assert masters.asked == 1


async def test_many_values_keep_their_order_and_places(world: World) -> None:
    gone, kept = Subject.contact(uuid4()), Subject.contact(uuid4())
    ids = [uuid4() for _ in range(4)]
    async with cipher_of(world) as cipher:
        blobs = [
            (row_id, await cipher.seal(COLUMN, row_id, subject, str(number)))
            for number, (row_id, subject) in enumerate(zip(ids, [gone, kept, kept, gone], strict=True))
        ]
        await cipher.destroy([gone])
    again = world.restarted()
    async with cipher_of(again) as cipher:
        assert await cipher.open_many(COLUMN, [*blobs, (ROW, None)]) == [None, "1", "2", None, None]
        with pytest.raises(Tampered):
            await cipher.open_many(COLUMN, [(ids[2], blobs[1][1])])


async def test_another_tenant_cannot_open_it_and_does_not_learn_of_the_key(world: World) -> None:
    blob = await seal(world, Subject.thread(uuid4()))
    async with cipher_of(world) as cipher:
        await cipher.open(COLUMN, ROW, blob)
    async with cipher_of(world, world.other) as cipher:
        with pytest.raises(Tampered):
            await cipher.open(COLUMN, ROW, blob)
        mine = await cipher.blind("email", "ada@example.org")
    async with cipher_of(world) as cipher:
        assert await cipher.blind("email", "ada@example.org") != mine


async def test_writers_who_come_at_once_share_one_key(world: World) -> None:
    thread = Subject.thread(uuid4())
    processes = [world.restarted() for _ in range(4)]
    blobs = await asyncio.gather(*(seal(process, thread, "x") for process in processes))
    assert len({key_id_of(blob) for blob in blobs}) == 1
    counts = await world.rows("select subject_kind, count(*) from data_keys group by 1 order by 1")
    assert [tuple(row) for row in counts] == [("tenant", 1), ("thread", 1)]


async def test_a_key_that_was_rolled_back_is_not_used_again(world: World) -> None:
    thread = Subject.thread(uuid4())
    with suppress(ZeroDivisionError):
        async with world.database.tenant_session(world.tenant) as session:
            lost = await session.cipher.seal(COLUMN, ROW, thread, "lost")
            # A second reader in the same transaction sees the row, and must not keep the key either.
            second = Cipher(world.keyring, world.tenant.tenant_id, session._connection)
            assert await second.open(COLUMN, ROW, lost) == "lost"
            raise ZeroDivisionError
    assert await world.rows("select 1 from data_keys") == []
    assert len(world.keyring) == 0
    kept = await seal(world, thread, "kept")
    assert key_id_of(kept) != key_id_of(lost)
    again = world.restarted()
    async with cipher_of(again) as cipher:
        assert await cipher.open(COLUMN, ROW, kept) == "kept"
        with pytest.raises(Tampered):
            await cipher.open(COLUMN, ROW, lost)


async def test_after_destruction_nothing_opens_and_a_new_key_is_made(world: World) -> None:
    thread, other = Subject.thread(uuid4()), Subject.thread(uuid4())
    blob, untouched = await seal(world, thread), await seal(world, other)
    async with cipher_of(world) as cipher:
        await cipher.open(COLUMN, ROW, blob)  # cached
    async with cipher_of(world) as cipher:
        assert await cipher.destroy([thread, Subject.contact(uuid4())]) == [key_id_of(blob)]
        assert await cipher.open(COLUMN, ROW, blob) is None
    async with cipher_of(world) as cipher:
        assert await cipher.open(COLUMN, ROW, blob) is None
        assert await cipher.local_of(key_id_of(blob)) is None
        assert await cipher.open(COLUMN, ROW, untouched) == "Grüß Gott"
        assert await cipher.destroy([thread]) == []
        assert key_id_of(await cipher.seal(COLUMN, ROW, thread, "again")) != key_id_of(blob)
    rows = await world.rows("select wrapped, destroyed_at from data_keys where id = :id", id=key_id_of(blob))
    assert rows[0].wrapped is None
    assert rows[0].destroyed_at is not None


async def test_destroying_the_tenants_key_takes_all_subjects_with_it(world: World) -> None:
    blob = await seal(world, Subject.thread(uuid4()))
    async with cipher_of(world) as cipher:
        index = await cipher.blind("email", "ada@example.org")
    async with cipher_of(world) as cipher:
        assert len(await cipher.destroy([Subject.tenant(), Subject.index()])) == 2
    again = world.restarted()
    async with cipher_of(again) as cipher:
        assert await cipher.open(COLUMN, ROW, blob) is None
        assert await cipher.blind("email", "ada@example.org") != index


async def test_a_stolen_row_of_another_subject_does_not_unwrap(world: World) -> None:
    first, second = uuid4(), uuid4()
    blob = await seal(world, Subject.thread(first))
    await seal(world, Subject.thread(second))
    await world.rows(
        "update data_keys set wrapped = (select wrapped from data_keys where subject_id = :a) where subject_id = :b returning 1",
        a=second,
        b=first,
    )
    again = world.restarted()
    async with cipher_of(again) as cipher:
        with pytest.raises(Tampered):
            await cipher.open(COLUMN, ROW, blob)


async def test_a_local_sealer_refuses_another_key(world: World) -> None:
    blob = await seal(world, Subject.thread(uuid4()))
    async with cipher_of(world) as cipher:
        sealer = await cipher.local(Subject.thread(uuid4()))
    with pytest.raises(Tampered):
        sealer.open(COLUMN, ROW, blob)


async def test_entries_end_by_time_and_the_eldest_go_first(world: World) -> None:
    now = 0.0
    keyring = Keyring(StaticMasters(FIRST), cache_seconds=10, size=2, clock=lambda: now)
    owners = [Owner(UUID(int=1), "tenant", UUID(int=number)) for number in range(3)]
    made = [await keyring.new_key(owner, None) for owner in owners]
    for row, key in made[:2]:
        keyring.remember(row, key)
    assert keyring.active(owners[0]) is made[0][1]  # used: now the other one is the eldest
    keyring.remember(*made[2])
    assert keyring.active(owners[1]) is None
    assert len(keyring) == 2
    assert keyring.get(UUID(int=2), made[0][0].id) is None  # another tenant
    now = 9.0
    assert keyring.active(owners[0]) is made[0][1]
    now = 10.0
    assert keyring.active(owners[0]) is None
    keyring.remember(*made[1])
    keyring.forget([made[1][0].id])
    assert keyring.active(owners[1]) is None


async def test_a_lost_or_exchanged_master_key_stops_the_start_and_changes_nothing(world: World) -> None:
    platform = TenantContext(PLATFORM_TENANT, actor="job:test")
    async with cipher_of(world, platform) as cipher:
        await cipher.seal("accounts.totp_secret", ROW, Subject.tenant(), "secret")
    before = await world.rows("select * from data_keys", platform)
    for masters, says in (
        (StaticMasters(SECOND), "'mk-1' is missing"),
        (StaticMasters({"mk-1": bytes(32)}), "'mk-1' is not the one"),
    ):
        async with world.database.platform_session("test") as session:
            with pytest.raises(ConfigurationError, match=says) as error:
                await verify_masters(session, masters)
        assert error.value.details == {"key_id": "mk-1"}
        assert "Nothing was changed" in error.value.message
    async with world.database.tenant_session(platform) as session:
        await verify_masters(session, StaticMasters({**SECOND, **FIRST}))
    assert await world.rows("select * from data_keys", platform) == before


async def test_the_database_refuses_a_destroyed_key_that_is_still_there(world: World) -> None:
    await seal(world, Subject.tenant())
    async with world.database.tenant_session(world.tenant) as session:
        with pytest.raises(Exception, match="ck_data_keys_destroyed"):
            await session.execute(text("update data_keys set destroyed_at = now()"))


async def test_a_file_is_read_with_the_key_of_its_subject_and_gone_with_it(world: World) -> None:
    thread, file_id = Subject.thread(uuid4()), uuid4()
    async with cipher_of(world) as cipher:
        stored = await world.files.put(world.tenant, cipher, file_id, b"a photo", thread)
    assert stored.size == 7
    async with cipher_of(world) as cipher:
        reader = await world.files.read(world.tenant, cipher, file_id)
    assert reader is not None
    assert b"".join([chunk async for chunk in reader]) == b"a photo"  # after the transaction
    async with cipher_of(world) as cipher:
        await cipher.destroy([thread])
        assert await world.files.read(world.tenant, cipher, file_id) is None
        with pytest.raises(NotFound):
            await world.files.read(world.other, cipher, file_id)
