"""Two tenants that have something in every table, shared by the tests of a file: a denied act changes nothing, and
that is what each test shows.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from server.deps import Parts, build_parts
from server.settings import ServerSettings
from storage.settings import StorageSettings
from tests.isolation.full import FullTenant, fill
from tests.sandbox.openai import OpenAISandbox
from tests.sandbox.server import serve
from tests.support.servers import TEMPLATE, Addresses, settings_for

Admin = psycopg.Connection[Any]


@dataclass(frozen=True)
class TwoTenants:
    """``a`` is the one that must not be seen, ``b`` the one that looks."""

    parts: Parts
    storage: StorageSettings
    admin: Admin
    a: FullTenant
    b: FullTenant


@pytest.fixture(scope="module")
def shared_database(addresses: Addresses) -> Iterator[str]:
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(addresses.database_url("postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template {TEMPLATE}".encode())
        yield name
        connection.execute(f"drop database {name} with (force)".encode())


@pytest.fixture(scope="module")
async def world(addresses: Addresses, shared_database: str) -> AsyncIterator[TwoTenants]:
    sandbox = OpenAISandbox()
    settings = settings_for(addresses, shared_database)
    with (
        serve(sandbox) as base_url,
        pytest.MonkeyPatch.context() as patch,
        psycopg.connect(addresses.database_url(shared_database), autocommit=True) as admin,
    ):
        patch.setenv("OPENAI_BASE_URL", f"{base_url}/v1")
        # Both in one collection of Chroma, so that nothing but the filters stands between them.
        patch.setattr("storage.vectors.index.SHARDS", 1)
        parts = build_parts("test", ServerSettings(), settings)
        a = await fill(parts, sandbox, admin, "acme")
        b = await fill(parts, sandbox, admin, "globex")
        yield TwoTenants(parts, settings, admin, a, b)
        await parts.aclose()
