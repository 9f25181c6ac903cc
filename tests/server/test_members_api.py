"""Members, invitations and roles: who may give what to whom."""

from typing import Any
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar

from server.auth import invitations
from server.deps import Parts
from storage.errors import Conflict
from storage.permissions import PERMISSIONS, SYSTEM_ROLES
from storage.repositories import audit, members
from tests.server.auth.people import AUTH, ME, PASSWORD, Device, audited, behind, error, link, post
from tests.support.edge import signed_in
from tests.support.staff import Colleague, colleague, long_ago, operator_inside
from tests.support.world import TestTenant

MEMBERS, ROLES = "/api/v1/members", "/api/v1/roles"
INVITATIONS = f"{MEMBERS}/invitations"
THREADS = "/api/v1/inbox/threads"


@pytest.fixture
async def owner(app: Litestar, client: httpx.AsyncClient, parts: Parts, tenant: TestTenant) -> Colleague:
    return await colleague(app, parts, tenant)


@pytest.fixture
async def admin(app: Litestar, client: httpx.AsyncClient, parts: Parts, tenant: TestTenant) -> Colleague:
    return await colleague(app, parts, tenant, "admin")


@pytest.fixture
async def staff(app: Litestar, client: httpx.AsyncClient, parts: Parts, tenant: TestTenant) -> Colleague:
    return await colleague(app, parts, tenant, "staff")


async def member_of(parts: Parts, device: Colleague) -> str:
    """The address of a person's membership."""
    found = await behind(parts, "select id from members where account_id = :id", id=device.account_id)
    return f"{MEMBERS}/{found}"


async def standing(parts: Parts, tenant: TestTenant) -> list[tuple[Any, ...]]:
    """Who has which role, and what the roles allow: what a refused request must not have changed."""
    async with parts.database.tenant_session(tenant.context) as session:
        people = await members.list_members(session, after=None, limit=200)
        roles = await members.list_roles(session)
    return [(one["id"], one["role"], one["state"]) for one in people] + [
        (one["key"], one["name"], tuple(one["permissions"])) for one in roles
    ]


async def last_entry(parts: Parts, tenant: TestTenant, action: str) -> dict[str, Any]:
    async with parts.database.tenant_session(tenant.context) as session:
        return (await audit.search(session, action=action))[0]


async def test_members_are_listed_by_pages(
    admin: Colleague, staff: Colleague, parts: Parts, tenant: TestTenant, other_tenant: TestTenant
) -> None:
    first = (await admin.get(f"{MEMBERS}?limit=2")).json()
    rest = (await admin.get(f"{MEMBERS}?limit=2&after={first[-1]['id']}")).json()
    assert [one["role"] for one in [*first, *rest]] == ["staff", "admin", "staff"]
    assert [one["email"] for one in rest] == [staff.email]
    one = await admin.get(f"{MEMBERS}/{rest[0]['id']}")
    assert one.json() == rest[0]
    assert set(rest[0]) == {"id", "account_id", "email", "name", "role", "state", "created_at"}
    assert await audited(parts, tenant.info.id, "member.listed") == 2
    assert (await last_entry(parts, tenant, "member.read"))["object_id"] == rest[0]["id"]

    foreign = await behind(parts, "select id from members where account_id = :id", id=other_tenant.staff_id)
    for unknown in (foreign, uuid4()):
        for answer in (
            await admin.get(f"{MEMBERS}/{unknown}"),
            await admin.patch(f"{MEMBERS}/{unknown}", {"role": "read_only"}),
        ):
            assert error(answer) == (404, "NOT_FOUND", {})
            assert answer.json()["error"]["message"] == "No such member."
    assert await behind(parts, "select role_id from members where id = :id", id=foreign) == await behind(
        parts, "select id from roles where key = 'staff' and tenant_id = :id", id=other_tenant.info.id
    )


async def test_another_role_counts_at_once(
    admin: Colleague, staff: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    assert (await staff.get(THREADS)).status_code == 200
    answer = await admin.patch(await member_of(parts, staff), {"role": "prompt_engineer"})
    assert (answer.status_code, answer.json()["role"]) == (200, "prompt_engineer")
    assert (await staff.get(THREADS)).status_code == 403
    assert "prompts:write" in (await staff.get(ME)).json()["scopes"]
    entry = await last_entry(parts, tenant, "member.changed")
    assert entry["actor"] == f"user:{admin.account_id}"
    assert entry["detail"] == {
        "account": str(staff.account_id),
        "old_role": "staff",
        "new_role": "prompt_engineer",
        "old_state": "active",
        "new_state": "active",
    }


async def test_who_was_sent_away_is_out_at_once_and_can_come_back(
    admin: Colleague, staff: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    place = await member_of(parts, staff)
    assert (await staff.get(THREADS)).status_code == 200
    assert (await admin.patch(place, {"state": "disabled"})).json()["state"] == "disabled"
    assert error(await staff.get(THREADS)) == (403, "FORBIDDEN", {"reason": "not_member"})
    assert (await admin.patch(place, {"state": "active"})).json()["state"] == "active"
    assert (await staff.get(THREADS)).status_code == 200
    assert (await admin.patch(place, {"state": "active"})).status_code == 200  # nothing to do
    assert await audited(parts, tenant.info.id, "member.changed") == 2


async def test_nobody_rises_above_themselves(
    app: Litestar, admin: Colleague, owner: Colleague, staff: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    their_owner, their_admin, their_staff = [await member_of(parts, one) for one in (owner, admin, staff)]
    manager = signed_in(app, tenant, ("members:read", "members:write"))
    before = await standing(parts, tenant)

    async def managing(path: str, body: dict[str, Any]) -> httpx.Response:
        return await Device(app).ask("PATCH", path, body, **manager)

    for refused in (
        await admin.patch(their_admin, {"role": "owner"}),
        await admin.patch(their_admin, {"role": "read_only"}),
        await admin.patch(their_admin, {"state": "disabled"}),
        await admin.patch(their_owner, {"role": "staff"}),
        await admin.patch(their_owner, {"state": "disabled"}),
        await admin.patch(their_staff, {"role": "owner"}),
        await owner.patch(their_owner, {"state": "disabled"}),
        await owner.patch(their_owner, {"role": "admin"}),
        await managing(their_staff, {"state": "disabled"}),
        await managing(their_staff, {"role": "read_only"}),
        await staff.patch(their_admin, {"role": "staff"}),
        await staff.patch(their_staff, {"role": "owner"}),
    ):
        assert error(refused)[:2] == (403, "FORBIDDEN")
    missing = error(await managing(their_admin, {"role": "read_only"}))[2]["missing_scopes"]
    assert "inbox:write" in missing
    assert error(await admin.patch(their_staff, {"role": "emperor"})) == (
        422,
        "VALIDATION_ERROR",
        {"field": "role"},
    )
    assert (await admin.patch(their_staff, {"email": "x@y.example"})).status_code == 400
    assert await standing(parts, tenant) == before
    assert await audited(parts, tenant.info.id, "member.changed") == 0
    # Owners may, each other too.
    assert (await owner.patch(their_admin, {"role": "owner"})).status_code == 200
    assert (await admin.patch(their_owner, {"role": "staff"})).status_code == 200
    assert (await owner.patch(their_admin, {"role": "staff"})).status_code == 403


async def test_the_last_active_owner_stays(owner: Colleague, parts: Parts, tenant: TestTenant) -> None:
    member = await behind(parts, "select id from members where account_id = :id", id=owner.account_id)
    before = await standing(parts, tenant)
    async with parts.database.tenant_session(tenant.context) as session:
        staff = (await members.role_by_key(session, "staff"))["id"]

    async def change(role_id: Any, state: str | None) -> None:
        async with parts.database.tenant_session(tenant.context) as session:
            await members.set_member(session, member, role_id=role_id, state=state)

    with pytest.raises(Conflict):
        await change(None, "disabled")
    with pytest.raises(Conflict):
        await change(staff, None)
    assert await standing(parts, tenant) == before


async def test_an_operator_inside_touches_nobodys_rights(
    app: Litestar, client: httpx.AsyncClient, staff: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    operator = await operator_inside(app, parts, tenant, sorted(PERMISSIONS))
    before, place = await standing(parts, tenant), await member_of(parts, staff)
    assert (await operator.get(MEMBERS)).status_code == 200
    account = {"name": "Robot", "scopes": ["crm:read"]}
    for refused in (
        await operator.patch(place, {"role": "read_only"}),
        await operator.post(INVITATIONS, {"email": "new@acme.example", "role": "read_only"}),
        await operator.delete(f"{INVITATIONS}/{uuid4()}"),
        await operator.post(ROLES, {"key": "mine", "name": "Mine", "permissions": ["crm:read"]}),
        await operator.post("/api/v1/service-accounts", account),
        await operator.delete(f"/api/v1/service-accounts/{uuid4()}"),
        await operator.post("/api/v1/tenants", {"name": "Mine"}),
    ):
        assert error(refused) == (403, "FORBIDDEN", {"reason": "impersonation"})
    assert await standing(parts, tenant) == before
    assert "invitation" not in {mail.template for mail in await post(parts)}


# --- invitations ----------------------------------------------------------------------------------------------------


async def test_an_invitation_from_mail_to_work(
    app: Litestar, admin: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    sent = await admin.post(INVITATIONS, {"email": " New@Acme.example".strip(), "role": "staff"})
    assert sent.status_code == 201, sent.text
    (waiting,) = (await admin.get(INVITATIONS)).json()
    assert (waiting["id"], waiting["email"], waiting["role"], waiting["invited_by"]) == (
        sent.json()["id"],
        "new@acme.example",
        "staff",
        f"user:{admin.account_id}",
    )
    token = await link(parts, "invitation", "new@acme.example")
    assert token not in (await admin.get(INVITATIONS)).text
    device = Device(app)
    joined = await device.post(
        f"{AUTH}/invitations/accept", {"token": token, "name": "New", "password": PASSWORD}
    )
    assert joined.json() == {"tenant": "acme"}
    await device.login("new@acme.example")
    assert (await device.get(THREADS)).status_code == 200
    assert (await admin.get(INVITATIONS)).json() == []
    again = await admin.post(INVITATIONS, {"email": "NEW@acme.example", "role": "staff"})
    assert error(again) == (409, "CONFLICT", {})
    assert again.json()["error"]["message"] == "This person is a member already."
    entry = await last_entry(parts, tenant, "member.invited")
    assert (entry["object_id"], entry["detail"]) == (waiting["id"], {"role": "staff"})


async def test_an_invitation_taken_back_or_sent_again(
    app: Litestar,
    admin: Colleague,
    parts: Parts,
    tenant: TestTenant,
    other_tenant: TestTenant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    invite = {"email": "new@acme.example", "role": "staff"}
    first = (await admin.post(INVITATIONS, invite)).json()["id"]
    old = await link(parts, "invitation", "new@acme.example")
    assert error(await admin.post(INVITATIONS, invite))[:2] == (409, "CONFLICT")
    await behind(parts, "update one_time_tokens set created_at = created_at - interval '61 s'")
    second = (await admin.post(INVITATIONS, invite)).json()["id"]
    new = await link(parts, "invitation", "new@acme.example")
    assert [one["id"] for one in (await admin.get(INVITATIONS)).json()] == [second]

    outsider = await colleague(app, parts, other_tenant, "admin")
    assert (await outsider.get(INVITATIONS)).json() == []
    for answer in (
        await outsider.delete(f"{INVITATIONS}/{second}"),
        await admin.delete(f"{INVITATIONS}/{first}"),
        await admin.delete(f"{INVITATIONS}/{uuid4()}"),
    ):
        assert error(answer) == (404, "NOT_FOUND", {})
    assert [one["id"] for one in (await admin.get(INVITATIONS)).json()] == [second]

    assert (await admin.delete(f"{INVITATIONS}/{second}")).status_code == 204
    for token in (old, new):
        used = await Device(app).post(
            f"{AUTH}/invitations/accept", {"token": token, "name": "New", "password": PASSWORD}
        )
        assert error(used)[:2] == (422, "VALIDATION_ERROR")
    assert await behind(parts, "select count(*) from accounts where email = 'new@acme.example'") == 0
    assert await audited(parts, tenant.info.id, "member.invitation_withdrawn") == 1
    monkeypatch.setattr(invitations, "MAX_PENDING", 0)
    assert error(await admin.post(INVITATIONS, {**invite, "email": "b@acme.example"}))[0] == 409


async def test_nobody_invites_somebody_above_themselves(
    app: Litestar, admin: Colleague, owner: Colleague, staff: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    manager = signed_in(app, tenant, ("members:write",))
    new = {"email": "new@acme.example", "role": "owner"}
    refused = await admin.post(INVITATIONS, new)
    assert error(refused)[:2] == (403, "FORBIDDEN")
    assert (
        await Device(app).ask("POST", INVITATIONS, {**new, "role": "staff"}, **manager)
    ).status_code == 403
    assert (await staff.post(INVITATIONS, {**new, "role": "read_only"})).status_code == 403
    assert (await admin.post(INVITATIONS, {**new, "role": "emperor"})).status_code == 422
    assert (await admin.post(INVITATIONS, {**new, "email": "nobody"})).status_code == 400
    assert "invitation" not in {mail.template for mail in await post(parts)}
    made = (await owner.post(INVITATIONS, new)).json()["id"]
    assert (await admin.delete(f"{INVITATIONS}/{made}")).status_code == 403
    assert [one["id"] for one in (await owner.get(INVITATIONS)).json()] == [made]


# --- roles ----------------------------------------------------------------------------------------------------------


async def test_roles_and_what_can_be_allowed(staff: Colleague, owner: Colleague) -> None:
    found = (await owner.get(ROLES)).json()
    assert {one["key"]: sorted(one["permissions"]) for one in found["roles"]} == {
        one.key: sorted(one.permissions) for one in SYSTEM_ROLES
    }
    assert {one["key"] for one in found["roles"] if one["needs_second_factor"]} == {"owner", "admin"}
    assert {one["key"]: one["description"] for one in found["permissions"]} == dict(PERMISSIONS)
    one = await owner.get(f"{ROLES}/{found['roles'][0]['id']}")
    assert one.json() == found["roles"][0]
    assert (await staff.get(ROLES)).status_code == 403


async def test_a_role_of_ones_own_from_making_to_removing(
    owner: Colleague, staff: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    made = await owner.post(
        ROLES, {"key": "desk", "name": "Desk", "permissions": ["inbox:read", "crm:read", "inbox:read"]}
    )
    assert made.status_code == 201, made.text
    role = made.json()
    assert (role["permissions"], role["system"]) == (["crm:read", "inbox:read"], False)
    place = await member_of(parts, staff)
    assert (await owner.patch(place, {"role": "desk"})).status_code == 200
    assert (await staff.get(THREADS)).status_code == 200
    changed = await owner.patch(f"{ROLES}/{role['id']}", {"permissions": ["crm:read"]})
    assert changed.json() == {**role, "permissions": ["crm:read"]}
    assert (await staff.get(THREADS)).status_code == 403
    entry = await last_entry(parts, tenant, "role.changed")
    assert entry["detail"] == {"key": "desk", "added": [], "removed": ["inbox:read"], "renamed": False}

    assert error(await owner.delete(f"{ROLES}/{role['id']}"))[:2] == (409, "CONFLICT")
    await owner.patch(place, {"role": "staff"})
    invited = (await owner.post(INVITATIONS, {"email": "n@acme.example", "role": "desk"})).json()["id"]
    assert error(await owner.delete(f"{ROLES}/{role['id']}"))[:2] == (409, "CONFLICT")
    assert (await owner.get(f"{ROLES}/{role['id']}")).status_code == 200
    assert (await owner.delete(f"{INVITATIONS}/{invited}")).status_code == 204
    assert (await owner.delete(f"{ROLES}/{role['id']}")).status_code == 204
    assert (await owner.get(f"{ROLES}/{role['id']}")).status_code == 404
    assert await audited(parts, tenant.info.id, "role.removed") == 1


async def test_roles_that_must_not_be(
    app: Litestar,
    owner: Colleague,
    admin: Colleague,
    parts: Parts,
    tenant: TestTenant,
    other_tenant: TestTenant,
) -> None:
    strong = {
        "key": "eraser",
        "name": "Eraser",
        "permissions": ["privacy:erase", "roles:write", "roles:read"],
    }
    eraser = (await owner.post(ROLES, strong)).json()["id"]
    system = (await owner.get(ROLES)).json()["roles"][0]["id"]
    foreign = await behind(
        parts, "select id from roles where key = 'staff' and tenant_id = :id", id=other_tenant.info.id
    )
    holder = await colleague(app, parts, tenant, "eraser")
    before = await standing(parts, tenant)
    fine = {"key": "desk", "name": "Desk", "permissions": ["crm:read"]}
    for status, refused in (
        (422, await owner.post(ROLES, {**fine, "permissions": ["crm:everything"]})),
        (422, await owner.post(ROLES, {**fine, "permissions": ["platform:read"]})),
        (400, await owner.post(ROLES, {**fine, "permissions": []})),
        (400, await owner.post(ROLES, {**fine, "key": "Not A Key"})),
        (400, await owner.post(ROLES, {**fine, "system": True})),
        (409, await owner.post(ROLES, {**fine, "key": "owner"})),
        (409, await owner.post(ROLES, {**fine, "key": "operator"})),
        (409, await owner.post(ROLES, {**fine, "key": "eraser"})),
        (403, await admin.post(ROLES, {**fine, "permissions": ["privacy:erase"]})),
        (403, await admin.patch(f"{ROLES}/{eraser}", {"name": "Mine"})),
        (403, await admin.patch(f"{ROLES}/{eraser}", {"permissions": ["crm:read"]})),
        (403, await admin.delete(f"{ROLES}/{eraser}")),
        (403, await holder.patch(f"{ROLES}/{eraser}", {"permissions": ["roles:write"]})),
        (403, await holder.post(ROLES, fine)),
        (422, await owner.patch(f"{ROLES}/{eraser}", {"permissions": ["platform:write"]})),
        (409, await owner.patch(f"{ROLES}/{system}", {"permissions": ["crm:read"]})),
        (409, await owner.delete(f"{ROLES}/{system}")),
        (404, await owner.patch(f"{ROLES}/{foreign}", {"name": "Mine"})),
        (404, await owner.delete(f"{ROLES}/{foreign}")),
        (404, await owner.get(f"{ROLES}/{foreign}")),
    ):
        assert refused.status_code == status, (refused.request.method, refused.text)
    await long_ago(app, parts, owner)
    for refused in (
        await owner.post(ROLES, fine),
        await owner.patch(f"{ROLES}/{eraser}", {"name": "Mine"}),
        await owner.delete(f"{ROLES}/{eraser}"),
    ):
        assert error(refused) == (403, "FORBIDDEN", {"reason": "step_up"})
    assert await standing(parts, tenant) == before
