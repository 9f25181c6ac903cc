"""A world for each test that wants one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.settings import StorageSettings
from tests.storage.crypto.world import World, close, make_world


@pytest.fixture
async def world(storage_settings: StorageSettings, tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(storage_settings, tmp_path / "files")
    yield made
    await close(made)
