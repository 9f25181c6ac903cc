"""Fixtures of the whole suite. Servers are started once for a run, by the process that pytest was started in;
each test that wants a database gets its own, cloned from a template that the real migrations have built.
"""

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from server.deps import Parts, build_parts
from server.settings import ServerSettings
from server.telemetry import configure_logging
from storage.settings import StorageSettings
from tests.sandbox.openai import OpenAISandbox
from tests.sandbox.server import serve
from tests.support.servers import (
    MASTER_KEYS,
    TEMPLATE,
    Addresses,
    Servers,
    make_template,
    settings_for,
    start_servers,
)
from tests.support.world import TestTenant, Visitor, make_tenant, make_visitor

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "build" / "models"
_servers: Servers | None = None

# structlog's own renderer draws a graph's traceback for seconds, with all local values in it.
configure_logging("WARNING", sys.stderr)

os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
# No setting of the developer's own may leak into a test, and no model may be asked for real.
for name in (
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "EMBEDDING_MODEL",
    "DATABASE_URL",
    "DATABASE_APP_URL",
    "DATABASE_PLATFORM_URL",
    "DATABASE_IDENTITY_URL",
    "MASTER_KEY_FILE",
    "MASTER_KMS",
    "MAIL_URL",
    "PUBLIC_URL",
):
    os.environ.pop(name, None)
os.environ["MODEL_CACHE_DIR"] = str(MODELS)
os.environ["MASTER_KEYS"] = MASTER_KEYS


def pytest_configure(config: pytest.Config) -> None:
    global _servers
    if "PYTEST_XDIST_WORKER" in os.environ or config.option.collectonly:
        return
    _servers = start_servers()
    data = Path(tempfile.mkdtemp(prefix="data-", dir=_servers.folder))
    addresses = Addresses(_servers.postgres_port, _servers.redis_url, _servers.chroma_url, data)
    make_template(addresses)
    addresses.publish()


def pytest_unconfigure() -> None:
    if _servers is not None:
        _servers.stop()


@pytest.fixture(scope="session")
def addresses() -> Addresses:
    return Addresses.published()


@pytest.fixture
def database_name(addresses: Addresses) -> Iterator[str]:
    """A database of the test's own."""
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(addresses.database_url("postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template {TEMPLATE}".encode())
        yield name
        connection.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def storage_settings(addresses: Addresses, database_name: str) -> StorageSettings:
    return settings_for(addresses, database_name)


@pytest.fixture
def sandbox() -> OpenAISandbox:
    """A provider whose answers the test scripts; used by the ``parts`` of tests that ask for ``scripted``."""
    return OpenAISandbox()


@pytest.fixture
def scripted(sandbox: OpenAISandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAISandbox]:
    """The same, served over HTTP, and configured as the provider."""
    with serve(sandbox) as base_url:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{base_url}/v1")
        yield sandbox


@pytest.fixture
async def parts(storage_settings: StorageSettings) -> AsyncIterator[Parts]:
    """The parts of a process over the test's own database. Redis is shared between tests: keys carry the
    tenant's id.
    """
    built = build_parts("test", ServerSettings(), storage_settings)
    yield replace(built)
    await built.aclose()


@pytest.fixture
async def tenant(parts: Parts) -> TestTenant:
    return await make_tenant(parts, "acme")


@pytest.fixture
async def other_tenant(parts: Parts) -> TestTenant:
    return await make_tenant(parts, "globex")


@pytest.fixture
async def visitor(parts: Parts, tenant: TestTenant) -> Visitor:
    return await make_visitor(parts, tenant)
