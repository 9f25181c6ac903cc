"""Who asks, while the API is fuzzed; and a served application with two full tenants to ask it of."""

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import uuid4

import psycopg
import uvicorn
from litestar import Litestar

from server.app import create_app
from server.deps import Parts, build_parts
from server.protection.limits import CLASSES
from server.settings import ServerSettings
from storage.permissions import SYSTEM_ROLES
from storage.repositories import members
from storage.repositories.directory import TenantInfo
from storage.settings import StorageSettings
from storage.tenancy import PLATFORM_TENANT
from tests.isolation.full import FullTenant, fill
from tests.sandbox.openai import OpenAISandbox
from tests.sandbox.server import serve
from tests.support.edge import header_of, someone
from tests.support.servers import TEMPLATE, Addresses, settings_for
from tests.support.world import TestTenant

T = TypeVar("T")
NOBODY, OTHER_OWNER, API_KEY, OPERATOR = "nobody", "owner of another business", "API key", "platform operator"
IDENTITIES = (NOBODY, *(role.key for role in SYSTEM_ROLES), OTHER_OWNER, API_KEY, OPERATOR)
# Limits are tested elsewhere; here they would answer most of the requests.
WIDE = json.dumps(
    {name: dict.fromkeys(one.rates, "999999999/1") for name, one in CLASSES.items() if one.rates}
)


@dataclass(frozen=True)
class Filled:
    """A database with two full tenants, from which others are cloned."""

    database: str
    a: FullTenant
    b: FullTenant


async def _fill(addresses: Addresses, database: str) -> Filled:
    sandbox = OpenAISandbox()
    with serve(sandbox) as base_url:
        os.environ["OPENAI_BASE_URL"] = f"{base_url}/v1"
        parts = build_parts("fuzz", ServerSettings(), settings_for(addresses, database))
        try:
            with psycopg.connect(addresses.database_url(database), autocommit=True) as admin:
                a = await fill(parts, sandbox, admin, "acme")
                b = await fill(parts, sandbox, admin, "globex")
        finally:
            await parts.aclose()
            del os.environ["OPENAI_BASE_URL"]
    return Filled(database, a, b)


@contextmanager
def cloned(addresses: Addresses, template: str) -> Iterator[str]:
    """A database of one's own; dropped at the end."""
    name = f"fuzz_{uuid4().hex[:12]}"
    with psycopg.connect(addresses.database_url("postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name} template {template}".encode())
        try:
            yield name
        finally:
            connection.execute(f"drop database {name} with (force)".encode())


@contextmanager
def filled(addresses: Addresses) -> Iterator[Filled]:
    """The database that each identity gets a copy of: what one of them breaks, the next does not see."""
    with cloned(addresses, TEMPLATE) as name:
        done: Future[Filled] = Future()
        # A thread of its own: pytest's plug-in may have a running loop in this one.
        thread = threading.Thread(target=lambda: done.set_result(asyncio.run(_fill(addresses, name))))
        thread.start()
        thread.join()
        yield done.result(timeout=0)


class Served:
    """The application on a real server with a loop and a thread of its own."""

    def __init__(self, storage: StorageSettings) -> None:
        self._storage = storage
        self._loop = asyncio.new_event_loop()
        self._server: uvicorn.Server | None = None
        self._begun: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, name="api")
        self.parts: Parts
        self.app: Litestar

    def __enter__(self) -> "Served":
        self._thread.start()
        self._begun.result(timeout=30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def call(self, act: Callable[[], Awaitable[T]]) -> T:
        """Something of the parts, on their loop."""

        async def acted() -> T:
            return await act()

        return asyncio.run_coroutine_threadsafe(acted(), self._loop).result(timeout=60)

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            if not self._begun.done():
                self._begun.set_exception(error)
            raise
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self.parts = build_parts("fuzz", ServerSettings(), self._storage)
        self.app = create_app(self.parts)
        config = uvicorn.Config(
            self.app,
            host="127.0.0.1",
            port=0,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=5,
        )
        self._server = _Server(config)
        serving = asyncio.create_task(self._server.serve())
        while not self._server.started and not serving.done():
            await asyncio.sleep(0.01)
        if not serving.done():
            self._begun.set_result(None)
        await serving
        await self.parts.aclose()


class _Server(uvicorn.Server):
    """A server that leaves the process's signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Credentials:
    """Headers of an identity: made anew when what it asked for has ended its own session, which a fuzzed ``POST /logout`` does."""

    def __init__(self, served: Served, world: Filled, identity: str) -> None:
        self._served, self._world, self._identity = served, world, identity
        self._lock = threading.Lock()
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        with self._lock:
            if self._headers is None:
                self._headers = self._made()
            return dict(self._headers)

    def drop(self, used: str | None) -> None:
        """These were refused."""
        with self._lock:
            if self._headers is not None and self._headers.get("authorization") == used:
                self._headers = None

    def _made(self) -> dict[str, str]:
        app, a, b = self._served.app, self._world.a.tenant, self._world.b.tenant
        if self._identity == NOBODY:
            return {}
        if self._identity == API_KEY:
            return {"authorization": f"Bearer {self._served.call(self._new_key)}"}
        tenant, role = {OTHER_OWNER: (b, "owner"), OPERATOR: (platform(a), "operator")}.get(
            self._identity, (a, self._identity)
        )
        return header_of(app, someone(app, tenant, role=role))

    async def _new_key(self) -> str:
        fresh = self._served.app.state.identity.keys.new()
        scopes = [
            name
            for name in SYSTEM_ROLES[0].permissions
            if not name.startswith(("members:write", "roles:write", "keys:write"))
        ]
        async with self._served.parts.database.tenant_session(self._world.a.tenant.context) as session:
            account = await members.add_service_account(session, f"Fuzz {uuid4().hex}", scopes)
            await members.add_key(
                session,
                account,
                name="fuzz",
                prefix=fresh.prefix,
                key_hash=fresh.digest,
                scopes=scopes,
                allowed_networks=[],
                expires_at=None,
            )
        return str(fresh.clear)


def platform(of: TestTenant) -> TestTenant:
    """The platform's own tenant, whose members the operators are."""
    info = TenantInfo(PLATFORM_TENANT, "platform", "Platform", ("en",), "UTC")
    return replace(of, info=info)
