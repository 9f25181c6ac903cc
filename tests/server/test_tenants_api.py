"""A business's settings, and opening another one."""

from typing import Any

import httpx
import pytest
from litestar import Litestar

from server.app import create_app
from server.deps import Parts
from storage.errors import Conflict
from storage.registry import RETENTION_DAYS
from storage.repositories import tenants
from tests.server.auth.people import AUTH, ME, Device, audited, behind, error, person
from tests.support.edge import opened, signed_in
from tests.support.staff import Colleague, colleague, long_ago, operator_inside
from tests.support.world import TestTenant

TENANTS = "/api/v1/tenants"
CURRENT = f"{TENANTS}/current"


@pytest.fixture
async def owner(app: Litestar, client: httpx.AsyncClient, parts: Parts, tenant: TestTenant) -> Colleague:
    return await colleague(app, parts, tenant)


async def test_settings_are_changed_by_those_who_saw_them(
    owner: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    before = await owner.get(CURRENT)
    assert before.status_code == 200
    assert before.headers["etag"] == '"1"'
    assert before.json() == {
        "id": str(tenant.info.id),
        "slug": "acme",
        "name": "Acme",
        "state": "active",
        "languages": ["en", "de"],
        "time_zone": "Europe/Vienna",
        "cors_origins": [],
        "settings": {
            "regions": [],
            "policies": {},
            "branding": {"title": None, "color": None, "logo_url": None},
            "require_second_factor": False,
            "retention": {},
        },
        "version": 1,
        "created_at": before.json()["created_at"],
    }
    change = {
        "name": " Acme Austria ",
        "languages": ["de", "en", "de"],
        "time_zone": "Europe/Berlin",
        "cors_origins": ["https://www.acme.example"],
        "settings": {
            "regions": ["AT", "DE"],
            "policies": {"returns": "Within 14 days."},
            "branding": {
                "title": "Acme",
                "color": "#00ff7f",
                "logo_url": "https://www.acme.example/logo.png#x",
            },
            "retention": {"conversation": 365, "audit": 30},
        },
    }
    after = await owner.patch(CURRENT, change, if_match='"1"')
    assert after.status_code == 200, after.text
    assert after.headers["etag"] == '"2"'
    assert after.json() == {
        **before.json(),
        **change,
        "name": "Acme Austria",
        "languages": ["de", "en"],
        "version": 2,
        "settings": {
            **change["settings"],  # type: ignore[dict-item]  # a literal's values are of many types
            "branding": {
                "title": "Acme",
                "color": "#00ff7f",
                "logo_url": "https://www.acme.example/logo.png",
            },
            "require_second_factor": False,
        },
    }
    stale = await owner.patch(CURRENT, {"name": "Else"}, if_match='"1"')
    assert error(stale) == (412, "PRECONDITION_FAILED", {"etag": '"2"'})
    assert error(await owner.patch(CURRENT, {"name": "Else"}, if_match='W/"2"'))[0] == 412
    assert (await owner.get(CURRENT)).json() == after.json()
    # What is missing stays, and what changes nothing is no change.
    part = await owner.patch(CURRENT, {"settings": {"regions": ["AT"]}}, if_match='"7", "2"')
    assert part.json()["settings"] == {**after.json()["settings"], "regions": ["AT"]}
    assert (await owner.patch(CURRENT, {"settings": {"regions": ["AT"]}}, if_match="*")).json()[
        "version"
    ] == 3
    assert await audited(parts, tenant.info.id, "tenant.changed") == 2


async def test_two_changes_at_once_do_not_overwrite_each_other(
    owner: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    async with parts.database.identity_session(tenant.info.id) as session:
        seen = await tenants.get(session, tenant.info.id)
    assert (await owner.patch(CURRENT, {"name": "First"})).status_code == 200
    with pytest.raises(Conflict):
        async with parts.database.identity_session(tenant.info.id) as session:
            await tenants.change(session, seen)
    assert (await owner.get(CURRENT)).json()["name"] == "First"


async def test_settings_of_other_parts_of_the_product_stay(
    owner: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    await behind(
        parts, 'update tenants set settings = \'{"tone": "warm"}\' where id = :id', id=tenant.info.id
    )
    assert (await owner.patch(CURRENT, {"settings": {"regions": ["AT"]}})).status_code == 200
    kept = await behind(parts, "select settings from tenants where id = :id", id=tenant.info.id)
    assert kept == {"tone": "warm", "regions": ["AT"]}


MEANINGLESS: list[tuple[dict[str, Any], int]] = [
    ({"name": ""}, 400),
    ({"name": "a\nb"}, 400),
    ({"slug": "mine"}, 400),
    ({"state": "suspended"}, 400),
    ({"version": 9}, 400),
    ({"languages": []}, 400),
    ({"languages": ["en"] * 11}, 400),
    ({"languages": ["xx"]}, 422),
    ({"time_zone": "Mars/Olympus"}, 422),
    ({"time_zone": "../../etc/passwd"}, 422),
    ({"cors_origins": ["https://a.example/"]}, 422),
    ({"cors_origins": ["null"]}, 422),
    ({"cors_origins": ["*"]}, 422),
    ({"cors_origins": [f"https://a{n}.example" for n in range(21)]}, 400),
    ({"settings": {"tone": "warm"}}, 400),
    ({"settings": {"regions": ["UK"]}}, 422),
    ({"settings": {"regions": ["at"]}}, 400),
    ({"settings": {"policies": {"Bad Key": "x"}}}, 400),
    ({"settings": {"policies": {"long": "x" * 4001}}}, 400),
    ({"settings": {"policies": {f"p{n}": "x" for n in range(31)}}}, 400),
    ({"settings": {"branding": {"color": "red"}}}, 400),
    ({"settings": {"branding": {"logo_url": "javascript:alert(1)"}}}, 422),
    ({"settings": {"branding": {"logo_url": "https://169.254.169.254/logo.png"}}}, 422),
    ({"settings": {"retention": {"audit": 29}}}, 422),
    ({"settings": {"retention": {"conversation": 0}}}, 400),
    ({"settings": {"retention": {"everything": 9}}}, 422),
    ({"settings": {"require_second_factor": "yes"}}, 400),
]


async def test_what_means_nothing_is_refused_and_changes_nothing(
    owner: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    before = (await owner.get(CURRENT)).json()
    for change, status in MEANINGLESS:
        answer = await owner.patch(CURRENT, {"name": "Changed", **change})
        assert (change, answer.status_code, answer.json()["error"]["code"]) == (
            change,
            status,
            "VALIDATION_ERROR",
        )
    assert (await owner.get(CURRENT)).json() == before
    assert await audited(parts, tenant.info.id, "tenant.changed") == 0


async def test_every_kind_of_retention_can_be_set(owner: Colleague) -> None:
    days = dict.fromkeys(RETENTION_DAYS, 31)
    answer = await owner.patch(CURRENT, {"settings": {"retention": days}})
    assert answer.json()["settings"]["retention"] == days


async def test_who_wants_a_second_factor_of_everybody_proves_first(
    app: Litestar, parts: Parts, tenant: TestTenant, owner: Colleague
) -> None:
    staff = await colleague(app, parts, tenant, "staff")
    assert (await staff.get(ME)).json()["blocked"] is None
    await long_ago(app, parts, owner)
    wanted = {"name": "Changed", "settings": {"require_second_factor": True}}
    assert error(await owner.patch(CURRENT, wanted)) == (403, "FORBIDDEN", {"reason": "step_up"})
    assert (await owner.get(CURRENT)).json()["version"] == 1
    # Other settings, and the same value again, need no proof.
    same = await owner.patch(CURRENT, {"settings": {"require_second_factor": False, "regions": ["AT"]}})
    assert same.status_code == 200
    # This code was not used: setting the app up took the one of the step before.
    assert (await owner.post(f"{AUTH}/step-up", {"code": owner.code()})).status_code == 200
    assert (await owner.patch(CURRENT, wanted)).status_code == 200
    assert (await staff.get(ME)).json()["blocked"] == "second_factor"
    assert (await staff.get("/api/v1/inbox/threads")).status_code == 403


async def test_only_who_may(
    app: Litestar, parts: Parts, client: httpx.AsyncClient, tenant: TestTenant
) -> None:
    assert (await client.get(CURRENT)).status_code == 401
    staff = signed_in(app, tenant)
    reader = signed_in(app, tenant, ("tenant:read",))
    operator = await operator_inside(app, parts, tenant, ["tenant:read", "tenant:write"])
    assert error(await client.get(CURRENT, headers=staff)) == (
        403,
        "FORBIDDEN",
        {"missing_scopes": ["tenant:read"]},
    )
    refused = await client.patch(CURRENT, json={"name": "X"}, headers=reader)
    assert error(refused) == (403, "FORBIDDEN", {"missing_scopes": ["tenant:write"]})
    refused = await operator.patch(CURRENT, {"settings": {"require_second_factor": True}})
    assert error(refused) == (403, "FORBIDDEN", {"reason": "impersonation"})
    shown = await client.get(CURRENT, headers=reader)
    assert (shown.json()["name"], shown.json()["version"]) == ("Acme", 1)


async def test_opening_another_business_and_going_on_there(
    app: Litestar, parts: Parts, client: httpx.AsyncClient, tenant: TestTenant
) -> None:
    staff = await colleague(app, parts, tenant, "staff")
    made = await staff.post(TENANTS, {"name": "Räder & Co", "language": "de", "time_zone": "Europe/Vienna"})
    assert made.status_code == 201, made.text
    assert (made.json()["slug"], made.json()["state"], made.json()["languages"]) == (
        "rader-co",
        "active",
        ["de", "en"],
    )
    listed = (await staff.get(TENANTS)).json()
    assert [(one["slug"], one["role"], one["state"], one["current"]) for one in listed] == [
        ("acme", "staff", "active", True),
        ("rader-co", "owner", "active", False),
    ]
    # Its own short name where another business has it, and where it is an address of ours.
    second = (await staff.post(TENANTS, {"name": "Acme"})).json()["slug"]
    third = (await staff.post(TENANTS, {"name": "Callback"})).json()["slug"]
    assert (second[:5], len(second), third[:9]) == ("acme-", 11, "callback-")
    renewed = await staff.post(f"{AUTH}/tenant", {"tenant": "rader-co"})
    staff.token = renewed.json()["access_token"]
    # An owner has to have a second factor.
    assert error(await staff.get(CURRENT)) == (403, "FORBIDDEN", {"reason": "second_factor"})
    await staff.set_up_totp()
    assert (await staff.get(CURRENT)).json()["slug"] == "rader-co"
    assert await audited(parts, made.json()["id"], "tenant.opened") == 1


async def test_nobody_opens_a_business_where_the_operator_does_it(
    parts: Parts, tenant: TestTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGN_UP", "false")
    app = create_app(parts)
    async with opened(app):
        staff = await colleague(app, parts, tenant, "staff")
        assert (await staff.post(TENANTS, {"name": "Mine"})).status_code == 403
        assert len((await staff.get(TENANTS)).json()) == 1


@pytest.fixture
async def stranger(app: Litestar, client: httpx.AsyncClient, parts: Parts) -> Device:
    """Somebody who works nowhere."""
    made, device = await person(parts, None), Device(app)
    await device.login(made.email)
    return device


async def test_somebody_who_works_nowhere_can_begin_here(stranger: Device) -> None:
    assert (await stranger.get(TENANTS)).json() == []
    assert error(await stranger.get(CURRENT)) == (403, "FORBIDDEN", {"reason": "no_tenant"})
    for wrong in ({"name": "Mine", "language": "xx"}, {"name": "Mine", "time_zone": "Mars/Olympus"}):
        assert (await stranger.post(TENANTS, wrong)).status_code == 422
    assert (await stranger.get(TENANTS)).json() == []
    assert (await stranger.post(TENANTS, {"name": "Mine"})).status_code == 201
    assert [one["role"] for one in (await stranger.get(TENANTS)).json()] == ["owner"]


async def test_a_session_that_a_provider_opened_opens_no_business(
    app: Litestar, parts: Parts, client: httpx.AsyncClient, tenant: TestTenant
) -> None:
    staff = await colleague(app, parts, tenant, "staff")
    await behind(parts, "update sessions set amr = '{fed,mfa}' where account_id = :id", id=staff.account_id)
    app.state.identity.principals.forget_account(staff.account_id)
    assert error(await staff.post(TENANTS, {"name": "Mine"})) == (403, "FORBIDDEN", {"reason": "federated"})
    assert len((await staff.get(TENANTS)).json()) == 1
