"""What happens when something that we lean on is away: nobody gets in by that, and nobody learns more by it."""

from dataclasses import replace
from typing import Any

import pytest
from litestar import Litestar
from pydantic import SecretStr

from server.app import create_app
from server.deps import Parts, build_parts
from server.settings import ServerSettings
from storage.settings import StorageSettings
from tests.security.walk import operations
from tests.server.auth.people import LOGIN, PASSWORD, Device
from tests.support.edge import header_of, opened, someone
from tests.support.world import TestTenant


def broken(storage: StorageSettings) -> Parts:
    """Parts whose database does not answer: nobody listens there."""
    urls: dict[str, Any] = {
        name: SecretStr("postgresql://nobody:x@127.0.0.1:1/none")
        for name in ("database_url", "database_app_url", "database_platform_url", "database_identity_url")
        if name in type(storage).model_fields
    }
    return build_parts("test", ServerSettings(), storage.model_copy(update=urls))


async def test_without_the_database_nobody_gets_in(
    parts: Parts, storage_settings: StorageSettings, tenant: TestTenant
) -> None:
    working = create_app(parts)
    async with opened(working):
        owner = someone(working, tenant, role="owner")
        token = header_of(working, owner)["authorization"].removeprefix("Bearer ")
        assert (await Device(working, token=token).get("/api/v1/inbox/threads")).status_code == 200
    away = broken(storage_settings)
    app = create_app(away)
    try:
        async with opened(app):
            tried = 0
            for one in operations(app):
                if not one.opt.get("public") and not one.path.startswith("/schema"):
                    answer = await Device(app, token=token).ask(one.method, one.address())
                    assert answer.status_code in {500, 503}, f"{one.name}: {answer.status_code}"
                    assert set(answer.json()) == {"error"}
                    assert "127.0.0.1" not in answer.text
                    assert "psycopg" not in answer.text
                    tried += 1
            assert tried > 80
            login = await Device(app).post(LOGIN, {"email": owner.email, "password": PASSWORD})
            assert login.status_code in {500, 503}
            assert "set-cookie" not in login.headers
    finally:
        await away.aclose()


def test_no_debug_mode_is_on(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITESTAR_DEBUG", "1")
    for env in ("production", "development"):
        app: Litestar = create_app(replace(parts, settings=parts.settings.model_copy(update={"env": env})))
        assert app.debug is False
        assert app.pdb_on_exception is False
