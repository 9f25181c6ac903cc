"""The first master key of `make run`."""

from uuid import uuid4

import pytest

from storage.crypto.cipher import Subject
from storage.crypto.genesis import first_master_key
from storage.crypto.masters import parse_entries
from storage.errors import ConfigurationError
from tests.storage.crypto.world import World
from tests.support.servers import Addresses


async def test_a_first_key_is_made_only_where_nothing_is_sealed(world: World) -> None:
    url = world.settings.role_urls().admin
    assert url is not None
    assert len(parse_entries([first_master_key(url)])) == 1
    async with world.database.tenant_session(world.tenant) as session:
        await session.cipher.seal("notes.text", uuid4(), Subject.tenant(), "x")
    with pytest.raises(ConfigurationError, match="no master key any more"):
        first_master_key(url)


def test_a_database_that_was_never_migrated_holds_nothing(addresses: Addresses) -> None:
    assert len(parse_entries([first_master_key(addresses.database_url("postgres"))])) == 1
