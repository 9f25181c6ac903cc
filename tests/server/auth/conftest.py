"""What tests of signing in share."""

import httpx
import pytest
from litestar import Litestar


@pytest.fixture
async def running(app: Litestar, client: httpx.AsyncClient) -> Litestar:
    """The application, open for devices of tests/server/auth/people.py."""
    return app
