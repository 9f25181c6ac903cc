"""The application over the test's own database."""

from collections.abc import AsyncIterator

import httpx
import pytest
from litestar import Litestar

from server.app import create_app
from server.deps import Parts
from tests.support.edge import opened, signed_in
from tests.support.world import TestTenant


@pytest.fixture
def app(parts: Parts) -> Litestar:
    return create_app(parts)


@pytest.fixture
async def client(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """Nobody in particular; pass ``headers=staff`` to be somebody."""
    async with opened(app) as spoken_to:
        yield spoken_to


@pytest.fixture
def staff(app: Litestar, tenant: TestTenant) -> dict[str, str]:
    """The token of a member of the tenant's staff."""
    return signed_in(app, tenant)
