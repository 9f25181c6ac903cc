"""Service accounts and API keys over HTTP, used as programs use them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar

from server.api import keys
from server.auth.api_keys import prefix_of
from server.auth.rights import FOR_PEOPLE
from server.deps import Parts
from storage.permissions import PERMISSIONS
from storage.sql import text
from tests.server.auth.people import Device, address, audited, behind, error
from tests.support.edge import signed_in
from tests.support.staff import Colleague, colleague, long_ago
from tests.support.world import TestTenant

ACCOUNTS = "/api/v1/service-accounts"
THREADS, CONTACTS = "/api/v1/inbox/threads", "/api/v1/crm/contacts"


@pytest.fixture
async def owner(app: Litestar, client: httpx.AsyncClient, parts: Parts, tenant: TestTenant) -> Colleague:
    return await colleague(app, parts, tenant)


@pytest.fixture
async def account(owner: Colleague) -> str:
    """The address of a service account that may read the inbox and the CRM."""
    made = await owner.post(ACCOUNTS, {"name": "Robot", "scopes": ["inbox:read", "crm:read"]})
    assert made.status_code == 201, made.text
    return f"{ACCOUNTS}/{made.json()['id']}"


async def new_key(owner: Colleague, account: str, **more: Any) -> tuple[str, str]:
    """(address of a new key, the key)."""
    made = await owner.post(f"{account}/keys", {"name": "First", "scopes": ["inbox:read"], **more})
    assert made.status_code == 201, made.text
    return f"{account}/keys/{made.json()['key']['id']}", made.json()["secret"]


async def uses(app: Litestar, secret: str, path: str = THREADS, ip: str | None = None) -> int:
    """What a program with a key is told."""
    return (await Device(app, ip=ip or address(), token=secret).get(path)).status_code


async def rows(parts: Parts) -> tuple[Any, ...]:
    """What a refused request must not have changed."""
    async with parts.database.platform_session("test") as session:
        found = await session.execute(
            text("""
            select (select count(*) from service_accounts), (select count(*) from api_keys),
                   (select count(*) from service_accounts where disabled_at is not null),
                   (select count(*) from api_keys where revoked_at is not null), (select max(expires_at) from api_keys),
                   (select min(expires_at) from api_keys)
            """)
        )
        return tuple(found.one())


async def test_a_key_from_making_to_revoking(
    app: Litestar, owner: Colleague, account: str, parts: Parts, tenant: TestTenant
) -> None:
    made = await owner.post(
        f"{account}/keys",
        {"name": " First ", "scopes": ["inbox:read"], "expires_in_days": 7},
        idempotency_key="once",
    )
    assert made.status_code == 201, made.text
    secret, key = made.json()["secret"], made.json()["key"]
    assert key == {
        "id": key["id"],
        "name": "First",
        "prefix": prefix_of(secret),
        "scopes": ["inbox:read"],
        "allowed_networks": [],
        "created_at": key["created_at"],
        "expires_at": key["expires_at"],
        "last_used_at": None,
        "replaces": None,
        "revoked_at": None,
    }
    days = datetime.fromisoformat(key["expires_at"]) - datetime.fromisoformat(key["created_at"])
    assert abs(days - timedelta(days=7)) < timedelta(minutes=1)
    # Nowhere again, and not in the database either.
    listed = await owner.get(f"{account}/keys")
    assert listed.json() == [key]
    assert secret not in listed.text
    assert (
        await behind(parts, "select count(*) from api_keys where api_keys::text like :s", s=f"%{secret}%")
        == 0
    )
    async with parts.database.tenant_session(tenant.context) as session:
        assert await session.scalar(text("select count(*) from idempotency_keys")) == 0

    assert await uses(app, secret) == 200
    assert await uses(app, secret, CONTACTS) == 403
    used = (await owner.get(f"{account}/keys")).json()[0]["last_used_at"]
    assert datetime.now(UTC) - datetime.fromisoformat(used) < timedelta(minutes=1)

    assert (await owner.delete(f"{account}/keys/{key['id']}")).status_code == 204
    assert await uses(app, secret) == 401
    ended = (await owner.get(f"{account}/keys")).json()[0]
    assert ended["revoked_at"] is not None
    assert (await owner.delete(f"{account}/keys/{key['id']}")).status_code == 204
    assert (await owner.get(f"{account}/keys")).json()[0] == ended
    assert await audited(parts, tenant.info.id, "api_key.created") == 1
    assert await audited(parts, tenant.info.id, "api_key.revoked") == 2


async def test_a_key_works_only_from_its_networks(app: Litestar, owner: Colleague, account: str) -> None:
    _, secret = await new_key(
        owner, account, allowed_networks=["192.0.2.0/24", "2001:db8::/32", "192.0.2.0/24"]
    )
    assert (await owner.get(f"{account}/keys")).json()[0]["allowed_networks"] == [
        "192.0.2.0/24",
        "2001:db8::/32",
    ]
    assert await uses(app, secret, ip="192.0.2.7") == 200
    assert await uses(app, secret, ip="192.0.3.7") == 403
    assert await uses(app, secret, ip="2001:db8::7") == 200


async def test_rotation_with_and_without_overlap(
    app: Litestar, owner: Colleague, account: str, parts: Parts, tenant: TestTenant
) -> None:
    place, old = await new_key(owner, account, allowed_networks=["10.0.0.0/8"])
    rotated = await owner.post(f"{place}/rotate", {"overlap_seconds": 3600})
    assert rotated.status_code == 201, rotated.text
    fresh, new = rotated.json()["key"], rotated.json()["secret"]
    assert (fresh["replaces"], fresh["name"], fresh["scopes"], fresh["allowed_networks"]) == (
        place.rpartition("/")[2],
        "First",
        ["inbox:read"],
        ["10.0.0.0/8"],
    )
    assert (await uses(app, old), await uses(app, new)) == (200, 200)
    ends = datetime.fromisoformat((await owner.get(f"{account}/keys")).json()[1]["expires_at"])
    assert abs(ends - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)
    # A key has one successor; another rotation is of that one.
    assert error(await owner.post(f"{place}/rotate", {"overlap_seconds": 0}))[:2] == (409, "CONFLICT")
    assert len((await owner.get(f"{account}/keys")).json()) == 2
    await behind(
        parts,
        "update api_keys set expires_at = clock_timestamp() where id = cast(:id as uuid)",
        id=place.rpartition("/")[2],
    )
    app.state.identity.principals.forget(prefix_of(old))
    assert (await uses(app, old), await uses(app, new)) == (401, 200)

    again = await owner.post(f"{account}/keys/{fresh['id']}/rotate", {"overlap_seconds": 0})
    assert (await uses(app, new), await uses(app, again.json()["secret"])) == (401, 200)
    refused = await owner.post(f"{account}/keys/{fresh['id']}/rotate", {"overlap_seconds": 0})
    assert error(refused)[:2] == (409, "CONFLICT")
    assert await audited(parts, tenant.info.id, "api_key.rotated") == 2


async def test_an_account_that_ends_takes_its_keys_with_it(
    app: Litestar, owner: Colleague, account: str, parts: Parts, tenant: TestTenant
) -> None:
    place, secret = await new_key(owner, account)
    assert await uses(app, secret) == 200
    assert (await owner.get(account)).json()["disabled_at"] is None
    assert (await owner.delete(account)).status_code == 204
    assert await uses(app, secret) == 401
    (listed,) = (await owner.get(ACCOUNTS)).json()
    assert (listed["name"], listed["scopes"]) == ("Robot", ["crm:read", "inbox:read"])
    assert listed["disabled_at"] is not None
    for refused in (
        await owner.post(f"{account}/keys", {"name": "More", "scopes": ["inbox:read"]}),
        await owner.post(f"{place}/rotate", {"overlap_seconds": 0}),
    ):
        assert error(refused)[:2] == (409, "CONFLICT")
    assert len((await owner.get(f"{account}/keys")).json()) == 1
    assert await audited(parts, tenant.info.id, "service_account.disabled") == 1


async def test_what_programs_never_get(
    app: Litestar,
    owner: Colleague,
    account: str,
    parts: Parts,
    tenant: TestTenant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert {scope.partition(":")[0] for scope in FOR_PEOPLE} == {
        "members",
        "roles",
        "keys",
        "tenant",
        "privacy",
    }
    place, secret = await new_key(owner, account, scopes=["crm:read"])
    before = await rows(parts)
    new = {"name": "Other", "scopes": ["crm:read"]}
    for scope in FOR_PEOPLE:
        refused = await owner.post(ACCOUNTS, {**new, "scopes": ["crm:read", scope]})
        assert error(refused) == (422, "VALIDATION_ERROR", {"refused": [scope]})
    keys_of = f"{account}/keys"
    for status, refused in (
        (422, await owner.post(ACCOUNTS, {**new, "scopes": ["crm:everything"]})),
        (422, await owner.post(ACCOUNTS, {**new, "scopes": ["platform:read"]})),
        (400, await owner.post(ACCOUNTS, {**new, "scopes": []})),
        (400, await owner.post(ACCOUNTS, {**new, "name": ""})),
        (409, await owner.post(ACCOUNTS, {**new, "name": "Robot"})),
        (422, await owner.post(keys_of, {**new, "scopes": ["crm:write"]})),
        (422, await owner.post(keys_of, {**new, "scopes": ["members:read"]})),
        (400, await owner.post(keys_of, {**new, "expires_in_days": 0})),
        (400, await owner.post(keys_of, {**new, "expires_in_days": 366})),
        (422, await owner.post(keys_of, {**new, "allowed_networks": ["192.0.2.1/24"]})),
        (400, await owner.post(keys_of, {**new, "allowed_networks": ["10.0.0.0/8"] * 51})),
        (400, await owner.post(f"{place}/rotate", {"overlap_seconds": 604_801})),
        (400, await owner.post(f"{place}/rotate", {"overlap_seconds": -1})),
        # A key makes no keys, whatever it may read.
        (403, await Device(app, token=secret).post(ACCOUNTS, new)),
        (403, await Device(app, token=secret).get(ACCOUNTS)),
    ):
        assert refused.status_code == status, (refused.request.url, refused.text)
    monkeypatch.setattr(keys, "MAX_KEYS", 1)
    monkeypatch.setattr(keys, "MAX_ACCOUNTS", 1)
    assert error(await owner.post(keys_of, new))[0] == 409
    assert error(await owner.post(ACCOUNTS, new))[0] == 409
    assert await rows(parts) == before


async def test_nobody_makes_a_key_for_more_than_they_may(
    app: Litestar, client: httpx.AsyncClient, owner: Colleague, account: str, parts: Parts, tenant: TestTenant
) -> None:
    place, secret = await new_key(owner, account)
    before = await rows(parts)
    # May manage keys, and read the CRM, but not the inbox.
    keeper = signed_in(app, tenant, ("keys:read", "keys:write", "crm:read"))
    for path, body in (
        (ACCOUNTS, {"name": "Mine", "scopes": ["inbox:read"]}),
        (f"{account}/keys", {"name": "Mine", "scopes": ["inbox:read"]}),
        (f"{place}/rotate", {"overlap_seconds": 60}),
    ):
        refused = await client.post(path, json=body, headers=keeper)
        assert error(refused) == (403, "FORBIDDEN", {"missing_scopes": ["inbox:read"]})
    reader = signed_in(app, tenant, ("keys:read",))
    assert (await client.get(f"{account}/keys", headers=reader)).status_code == 200
    assert (await client.delete(place, headers=reader)).status_code == 403
    await long_ago(app, parts, owner)
    for refused in (
        await owner.post(ACCOUNTS, {"name": "Mine", "scopes": ["crm:read"]}),
        await owner.post(f"{account}/keys", {"name": "Mine", "scopes": ["crm:read"]}),
        await owner.post(f"{place}/rotate", {"overlap_seconds": 60}),
        await owner.delete(place),
        await owner.delete(account),
    ):
        assert error(refused) == (403, "FORBIDDEN", {"reason": "step_up"})
    assert await rows(parts) == before
    assert await uses(app, secret) == 200
    # But a leak may be stopped by everybody who manages keys.
    assert (await client.delete(place, headers=keeper)).status_code == 204
    assert await uses(app, secret) == 401


async def test_another_business_sees_and_reaches_nothing(
    app: Litestar, owner: Colleague, account: str, parts: Parts, other_tenant: TestTenant
) -> None:
    place, secret = await new_key(owner, account)
    second = await owner.post(ACCOUNTS, {"name": "Second", "scopes": ["crm:read"]})
    before = await rows(parts)
    outsider = await colleague(app, parts, other_tenant)
    assert (await outsider.get(ACCOUNTS)).json() == []
    unknown = f"{ACCOUNTS}/{uuid4()}"
    for theirs in (account, unknown):
        for answer in (
            await outsider.get(theirs),
            await outsider.get(f"{theirs}/keys"),
            await outsider.post(f"{theirs}/keys", {"name": "Mine", "scopes": ["crm:read"]}),
            await outsider.delete(theirs),
        ):
            assert error(answer) == (404, "NOT_FOUND", {})
    # Nor is a key found under an account that is not its own.
    elsewhere = place.replace(account, f"{ACCOUNTS}/{second.json()['id']}")
    for answer in (
        await outsider.post(f"{place}/rotate", {"overlap_seconds": 0}),
        await outsider.delete(place),
        await owner.post(f"{elsewhere}/rotate", {"overlap_seconds": 0}),
        await owner.delete(elsewhere),
    ):
        assert error(answer) == (404, "NOT_FOUND", {})
    assert await rows(parts) == before
    assert await uses(app, secret) == 200
    assert set(PERMISSIONS) > FOR_PEOPLE
