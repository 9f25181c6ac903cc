"""The job over the test's own database, files and file of tombstones."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from server.deps import Parts
from server.jobs.privacy import PrivacyJob
from storage.files import FileStore
from storage.redis import make_pool
from tests.support.world import TestTenant, make_tenant
from tools.crm import repository as crm


@pytest.fixture
def own(parts: Parts, tmp_path: Path) -> Parts:
    """Parts whose files lie in a folder of the test's own."""
    return replace(parts, files=FileStore(tmp_path / "files"))


@pytest.fixture
async def business(own: Parts) -> TestTenant:
    tenant = await make_tenant(own, "acme", languages=("de", "en"))
    async with own.database.tenant_session(tenant.context) as session:
        await crm.add_pipeline(session, "Test", ["New"])
    return tenant


@pytest.fixture
async def redis(parts: Parts) -> AsyncIterator[Redis]:
    client = Redis(connection_pool=make_pool(parts.storage.redis_url or ""))
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture
def tombstones(tmp_path: Path) -> Path:
    return tmp_path / "destroyed-keys.jsonl"


@pytest.fixture
def job(own: Parts, redis: Redis, tombstones: Path) -> PrivacyJob:
    return PrivacyJob(own.database, own.files, own.bus, redis, tombstones)
