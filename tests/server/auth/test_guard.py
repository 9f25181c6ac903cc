"""Who gets in: by which credentials, to which routes, and in which order refusals come."""

from datetime import UTC, datetime, timedelta

import pytest
from litestar import Litestar, get
from litestar.testing import create_test_client

from server.auth.api_keys import ApiKeys
from server.auth.caller import of_session
from server.auth.guard import require_rights
from server.deps import Parts
from server.errors import render_error
from storage.repositories import members
from storage.tenancy import PLATFORM_TENANT
from tests.server.auth.people import (
    AUTH,
    ME,
    THREADS,
    Device,
    Refusal,
    behind,
    error,
)
from tests.support.edge import Someone, header_of, signed_in, someone
from tests.support.servers import SECRET_KEY
from tests.support.world import TestTenant

REFUSED: Refusal = (401, "UNAUTHENTICATED", {})


def device_of(app: Litestar, who: Someone) -> Device:
    return Device(app, token=header_of(app, who)["authorization"].removeprefix("Bearer "))


async def api_key(parts: Parts, tenant: TestTenant, *scopes: str, networks: tuple[str, ...] = ()) -> str:
    """A key of a service account with these scopes."""
    made = ApiKeys(SECRET_KEY).new()
    async with parts.database.tenant_session(tenant.context) as session:
        account = await members.add_service_account(session, f"Program {made.prefix}", scopes)
        await members.add_key(
            session,
            account,
            name="Key",
            prefix=made.prefix,
            key_hash=made.digest,
            scopes=scopes,
            allowed_networks=networks,
            expires_at=None,
        )
    return str(made.clear)


def test_a_route_that_says_nothing_is_open_to_nobody() -> None:
    @get("/forgotten", sync_to_thread=False)
    def forgotten() -> str:
        return "secret"

    with create_test_client(
        [forgotten], guards=[require_rights], exception_handlers={Exception: render_error}
    ) as client:
        answer = client.get("/forgotten", headers={"authorization": "Bearer x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")


async def test_each_missing_permission_is_named(running: Litestar, tenant: TestTenant) -> None:
    reader = device_of(running, someone(running, tenant, ("crm:read",)))
    assert error(await reader.get(THREADS)) == (403, "FORBIDDEN", {"missing_scopes": ["inbox:read"]})


async def test_what_each_role_may_do_is_what_the_role_says(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    for role in ("owner", "admin", "staff", "prompt_engineer", "read_only"):
        device = device_of(running, someone(running, tenant, role=role))
        granted = await behind(
            parts,
            "select permissions from roles where tenant_id = :tenant and key = :key",
            tenant=tenant.info.id,
            key=role,
        )
        assert (await device.get(ME)).json()["scopes"] == sorted(granted)


@pytest.mark.parametrize("role", ["owner", "admin"])
async def test_roles_that_need_a_second_factor(running: Litestar, tenant: TestTenant, role: str) -> None:
    device = device_of(running, someone(running, tenant, role=role, amr=("pwd",)))
    assert error(await device.get(THREADS)) == (403, "FORBIDDEN", {"reason": "second_factor"})
    for method in ("otp", "hwk", "rec", "mfa"):
        device = device_of(running, someone(running, tenant, role=role, amr=("pwd", method)))
        assert (await device.get(THREADS)).status_code == 200
    device = device_of(running, someone(running, tenant, role="staff", amr=("pwd",)))
    assert (await device.get(THREADS)).status_code == 200


async def test_api_keys_are_no_people(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    device = Device(running, token=await api_key(parts, tenant, "inbox:read"))
    assert (await device.get(THREADS)).status_code == 200
    for method, path in (
        ("GET", ME),
        ("POST", f"{AUTH}/logout"),
        ("POST", f"{AUTH}/totp"),
        ("GET", f"{AUTH}/sessions"),
    ):
        assert error(await device.ask(method, path)) == (403, "FORBIDDEN", {})
    assert device.token is not None
    for wrong in (device.token[:-1], device.token + "x", "sec_live_nonsense", "sec_"):
        assert error(await Device(running, token=wrong).get(THREADS)) == REFUSED


async def test_a_key_is_bound_to_networks_tenant_and_program(
    running: Litestar, parts: Parts, tenant: TestTenant, other_tenant: TestTenant
) -> None:
    key = await api_key(parts, tenant, "inbox:read", networks=("10.7.0.0/16",))
    inside, outside = Device(running, token=key, ip="10.7.3.4"), Device(running, token=key, ip="10.8.3.4")
    assert (await inside.get(THREADS)).status_code == 200
    # The word of whoever asks about their address is nobody's word.
    assert error(await outside.get(THREADS, x_forwarded_for="10.7.3.4")) == (403, "FORBIDDEN", {})
    state = "update tenants set state = '{}' where id = :id"
    await behind(parts, state.format("suspended"), id=tenant.info.id)
    running.state.identity.principals._known.clear()  # as after ten seconds
    assert error(await inside.get(THREADS)) == (403, "FORBIDDEN", {"reason": "suspended"})
    await behind(parts, state.format("active"), id=tenant.info.id)
    async with parts.database.tenant_session(tenant.context) as session:
        await members.disable_service_account(
            session, (await members.list_service_accounts(session))[0]["id"]
        )
    running.state.identity.principals._known.clear()
    assert error(await inside.get(THREADS)) == REFUSED


async def test_a_token_speaks_for_its_own_session_only(
    running: Litestar, tenant: TestTenant, other_tenant: TestTenant
) -> None:
    """Signed by us, and put together wrongly: of two people, two businesses, or of before a password's reset."""
    one, two = someone(running, tenant), someone(running, other_tenant)
    good = {
        "account_id": one.account_id,
        "tenant_id": one.tenant_id,
        "session_id": one.session_id,
        "security_version": 1,
        "amr": ["pwd"],
        "auth_time": datetime.now(UTC),
    }
    tokens = running.state.identity.tokens
    assert (await Device(running, token=tokens.issue(**good)).get(ME)).status_code == 200
    for wrong in (
        {"account_id": two.account_id},
        {"tenant_id": two.tenant_id},
        {"tenant_id": PLATFORM_TENANT},
        {"session_id": two.session_id},
        {"session_id": one.account_id},
        {"security_version": 0},
        {"security_version": 2},
    ):
        device = Device(running, token=tokens.issue(**{**good, **wrong}))
        assert error(await device.get(ME)) == REFUSED, wrong


async def test_nobody_learns_from_a_refusal_whether_a_row_exists(
    running: Litestar, tenant: TestTenant, other_tenant: TestTenant
) -> None:
    """Rights are looked at before the row is."""
    reader = Device(running, token=signed_in(running, tenant, ("crm:read",))["authorization"][7:])
    for row in (tenant.channel.id, other_tenant.channel.id):
        answer = await reader.get(f"{THREADS}/{row}/messages")
        assert error(answer) == (403, "FORBIDDEN", {"missing_scopes": ["inbox:read"]})


async def test_how_long_a_proof_is_fresh(running: Litestar, tenant: TestTenant) -> None:
    """Up to ten minutes, and only with all that the person has."""
    who = someone(running, tenant, amr=("pwd",))
    found = await running.state.identity.principals.by_token(
        header_of(running, who)["authorization"][7:], "req_1"
    )
    standing = found.caller.standing
    assert standing is not None
    at = standing.authenticated_at
    caller = of_session(standing, "token", None, at)
    assert caller.fresh(at + timedelta(minutes=10))
    assert not caller.fresh(at + timedelta(minutes=10, microseconds=1))
