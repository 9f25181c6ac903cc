"""A small part of ``make probes``: the walls hold, and where one is taken away the probes say so."""

import pytest

from storage.roles import libpq_url
from tests.fuzz.identities import WIDE
from tests.isolation.conftest import TwoTenants
from tests.isolation.probe_tables import WITH_B
from tests.isolation.probes import Extent, World, probe
from tests.isolation.walls import KINDS

SMALL = Extent(
    tables=("contacts", "threads"), settings=(WITH_B,), roles=(), path="/crm/contacts/", stores=False
)


@pytest.fixture
async def probed(world: TwoTenants, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("RATE_LIMITS", WIDE)
    return World(world.parts, world.admin, libpq_url(world.storage.role_urls().app), world.a, world.b)


async def test_the_walls_hold(probed: World) -> None:
    tally = await probe(probed, SMALL)
    assert tally.leaks == []
    assert tally.counts["sql: select"] >= 300
    assert tally.counts["http: path"] >= 150
    assert tally.counts["vectors"] == 48
    assert tally.counts["rows of A are as they were"] > 40


# The last two may change rows of A's, as they must where nothing stops them.
@pytest.mark.parametrize(
    ("wall", "seen"),
    [
        ("filter:vectors", {"vectors"}),
        ("route", {"http: path", "http: list"}),
        ("policy:contacts", {"sql: select", "sql: update", "sql: insert", "http: path"}),
    ],
)
async def test_a_wall_that_is_away_is_seen(probed: World, wall: str, seen: set[str]) -> None:
    tally = await probe(probed, SMALL, wall)
    kinds = {kind for kind in tally.counts if any(leak.startswith(f"{kind}: ") for leak in tally.leaks)}
    assert seen <= kinds


async def test_an_unknown_wall_is_refused(probed: World) -> None:
    with pytest.raises(ValueError, match="no such wall"):
        await probe(probed, SMALL, "moat")
    assert len(KINDS) == 3
