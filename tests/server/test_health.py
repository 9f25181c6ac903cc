"""Live and ready, with each part taken away in turn."""

import httpx
import psycopg
import pytest

from server.app import create_app
from server.deps import build_parts
from server.embedded import free_port
from server.settings import ServerSettings
from tests.support.edge import opened
from tests.support.servers import Addresses, settings_for


async def test_live_asks_nobody(addresses: Addresses) -> None:
    answer = await ask(
        addresses, "never_made", "/health/live", redis_url=away("redis"), chroma_url=away("http")
    )
    assert (answer.status_code, answer.json()["status"]) == (200, "live")


async def test_ready(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health/ready")
    assert answer.status_code == 200
    content = answer.json()
    assert content["status"] == "ready"
    assert content["checks"] == {"database": "ok", "redis": "ok", "chroma": "ok"}
    assert content["personal_data"]["EMAIL"]


@pytest.mark.parametrize("missing", ["redis", "chroma"])
async def test_without_redis_or_chroma_it_is_degraded(
    addresses: Addresses, database_name: str, missing: str
) -> None:
    url = {"redis_url": away("redis")} if missing == "redis" else {"chroma_url": away("http")}
    answer = await ask(addresses, database_name, "/health/ready", **url)
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    checks = answer.json()["checks"]
    assert checks.pop(missing) in ("ConnectionError", "ConnectError")
    assert set(checks.values()) == {"ok"}


async def test_without_the_database_it_is_not_ready(addresses: Addresses) -> None:
    answer = await ask(addresses, "never_made", "/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert answer.json()["checks"] == {"database": "OperationalError", "redis": "ok", "chroma": "ok"}


async def test_a_database_that_was_never_migrated_is_not_ready(
    addresses: Addresses, database_name: str
) -> None:
    with psycopg.connect(addresses.database_url(database_name), autocommit=True) as connection:
        connection.execute("drop table alembic_version")
    answer = await ask(addresses, database_name, "/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert answer.json()["checks"]["database"] == "ProgrammingError"


def away(scheme: str) -> str:
    """An address at which nobody answers."""
    return f"{scheme}://127.0.0.1:{free_port()}"


async def ask(addresses: Addresses, database: str, path: str, **urls: str) -> httpx.Response:
    """One request to an application with these addresses."""
    parts = build_parts("test", ServerSettings(), settings_for(addresses, database, **urls))
    try:
        async with opened(create_app(parts)) as client:
            return await client.get(path)
    finally:
        await parts.aclose()
