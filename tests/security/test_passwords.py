"""Passwords are what people typed: whole, of any length up to the limit, and good for as long as nobody else knows them."""

from datetime import timedelta

from litestar import Litestar

from server.auth.passwords import MAX_CHARACTERS, Passwords, hash_password
from server.deps import Parts
from tests.server.auth.people import AUTH, Device, behind, person
from tests.support.world import TestTenant


async def test_no_part_of_a_password_is_ignored() -> None:
    passwords = Passwords()
    long = "Plum kettle, orbit sandwich " * 5
    long = long[:MAX_CHARACTERS]
    assert len(long) == 128
    stored = hash_password(long)
    assert await passwords.verify(stored, long, "a") is True
    changed = [
        long[:-1],
        long[:64],
        long[:72],
        long.lower(),
        long.upper(),
        f" {long[1:]}",
        f"{long[:-1]}!",
        f"{long[:80]}x{long[81:]}",
    ]
    for other in changed:
        assert await passwords.verify(stored, other, "a") is False, other
    spaced = "  leading and trailing blanks  "
    stored = hash_password(spaced)
    assert await passwords.verify(stored, spaced, "a") is True
    assert await passwords.verify(stored, spaced.strip(), "a") is False
    passwords.close()


async def test_a_password_does_not_grow_old(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    pat = await person(parts, tenant)
    long_ago = timedelta(days=3650)
    await behind(
        parts,
        "update accounts set created_at = clock_timestamp() - cast(:past as interval) where id = :id",
        past=long_ago,
        id=pat.account_id,
    )
    device = Device(running)
    answer = await device.login(pat.email)
    assert (answer.status_code, answer.json()["status"]) == (200, "signed_in")
    assert (await device.get(f"{AUTH}/me")).status_code == 200
