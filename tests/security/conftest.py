"""The application as browsers reach it over https, without limits of requests: walks ask more than anybody may."""

import json
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from litestar import Litestar

from server.app import create_app
from server.deps import Parts
from server.protection.limits import CLASSES, WHO
from tests.support.edge import opened
from tests.support.servers import Addresses


@pytest.fixture
def app(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Litestar:
    monkeypatch.setenv("PUBLIC_URL", "https://secretary.example")
    monkeypatch.setenv("RATE_LIMITS", json.dumps({name: dict.fromkeys(WHO, "off") for name in CLASSES}))
    return create_app(parts)


@pytest.fixture
async def running(app: Litestar) -> AsyncIterator[Litestar]:
    """The same, started."""
    async with opened(app):
        yield app


@pytest.fixture
def admin(addresses: Addresses, database_name: str) -> Iterator[psycopg.Connection]:
    """The test's database past every policy."""
    with psycopg.connect(addresses.database_url(database_name), autocommit=True) as connection:
        yield connection
