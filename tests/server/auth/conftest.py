"""What tests of signing in share."""

import time
from dataclasses import replace

import httpx
import pytest
from litestar import Litestar

from server.auth.devices import DeviceCookies
from server.auth.lockout import Guard, RedisStore
from tests.support.servers import SECRET_KEY


@pytest.fixture
async def running(app: Litestar, client: httpx.AsyncClient) -> Litestar:
    """The application, open for devices of tests/server/auth/people.py."""
    return app


@pytest.fixture
def still(running: Litestar) -> Litestar:
    """The same, where the clock of the counters of failures stands still: on a busy machine a wait of a second would be over before
    the attempt that has to run into it.
    """
    began = time.time()
    identity = running.state.identity
    store = RedisStore(identity.redis, now=lambda: began)
    guard = Guard(SECRET_KEY, DeviceCookies(SECRET_KEY), store, now=lambda: began)
    running.state.identity = replace(identity, guard=guard)
    return running
