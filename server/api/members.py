"""Who works in the business, and what each may do: members, invitations, roles. Which changes are allowed is in
server/auth/rights.py.
"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Request, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, Parameter
from msgspec import Meta

from server.api.auth.request import identity_of, where_of
from server.api.changes import transaction
from server.api.fields import END, Email, Name, Permission
from server.auth import invitations, rights
from server.auth.guard import caller_of
from storage.errors import Conflict, NotFound, ValidationFailed
from storage.permissions import PERMISSIONS, SECOND_FACTOR_ROLES
from storage.repositories import accounts, audit
from storage.repositories import invitations as invited
from storage.repositories import members as rows
from storage.sql import Session
from storage.tenancy import TenantContext

Limit = Annotated[int, Parameter(ge=1, le=200)]
RoleKey = Annotated[str, Meta(pattern=rf"^[a-z][a-z0-9_]{{1,39}}{END}")]
Permissions = Annotated[list[Permission], Meta(min_length=1, max_length=60)]
MAX_ROLES = 50


class Member(msgspec.Struct):
    """A person in the business."""

    id: UUID
    account_id: UUID
    email: str
    name: str
    role: str
    state: str
    created_at: datetime


class MemberChange(msgspec.Struct, forbid_unknown_fields=True):
    """``role`` is a role's key; ``disabled`` sends somebody away and keeps what they did under their name."""

    role: RoleKey | None = None
    state: Literal["active", "disabled"] | None = None


class Invite(msgspec.Struct, forbid_unknown_fields=True):
    email: Email
    role: RoleKey


class Invitation(msgspec.Struct):
    """An invitation that waits; ``role`` is null where that role is gone."""

    id: UUID
    email: str
    role: str | None
    invited_by: str
    created_at: datetime
    expires_at: datetime


class InvitationSent(msgspec.Struct):
    id: UUID


class Role(msgspec.Struct):
    """``system`` roles are the same in each business. ``needs_second_factor``: without one it opens nothing."""

    id: UUID
    key: str
    name: str
    permissions: list[str]
    system: bool
    needs_second_factor: bool


class PermissionOut(msgspec.Struct):
    key: str
    description: str


class Roles(msgspec.Struct):
    """The roles, and what can be allowed."""

    roles: list[Role]
    permissions: list[PermissionOut]


class NewRole(msgspec.Struct, forbid_unknown_fields=True):
    key: RoleKey
    name: Name
    permissions: Permissions


class RoleChange(msgspec.Struct, forbid_unknown_fields=True):
    name: Name | None = None
    permissions: Permissions | None = None


class MemberController(Controller):
    path = "/api/v1/members"
    tags = ("People",)

    @get(opt={"scopes": ["members:read"]})
    async def list_members(
        self,
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
        after: FromQuery[UUID | None] = None,
        limit: FromQuery[Limit] = 100,
    ) -> list[Member]:
        """Members, the oldest first. ``after`` is the ``id`` of the last one of the page before."""
        found = await rows.list_members(session, after=after, limit=limit)
        await audit.record(session, context, "member.listed", "member", "all", count=len(found))
        return msgspec.convert(found, list[Member])

    @get("/{member_id:uuid}", opt={"scopes": ["members:read"]})
    async def get_member(
        self,
        member_id: FromPath[UUID],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Member:
        """One member."""
        found = await rows.member(session, member_id)
        await audit.record(session, context, "member.read", "member", member_id)
        return msgspec.convert(found, Member)

    @patch("/{member_id:uuid}", opt={"scopes": ["members:write"], "people": True})
    async def change_member(
        self,
        member_id: FromPath[UUID],
        data: JSONBody[MemberChange],
        request: Request[Any, Any, Any],
        context: NamedDependency[TenantContext],
    ) -> Member:
        """Give somebody another role, send them away or let them in again. Never oneself; owners only by owners; and no role that
        is more than one's own.
        """
        caller = caller_of(request)
        async with transaction(request, context) as session:
            before = await rows.member(session, member_id, lock=True)
            role = await rows.role(session, before["role_id"])
            new_role = await _role(session, data.role) if data.role else None
            rights.require_may_change_member(caller, before, role, new_role)
            differs = (data.role or before["role"], data.state or before["state"]) != (
                before["role"],
                before["state"],
            )
            if differs:
                await rows.set_member(
                    session, member_id, role_id=new_role["id"] if new_role else None, state=data.state
                )
            after = await rows.member(session, member_id)
            await audit.record(
                session,
                context,
                "member.changed" if differs else "member.read",
                "member",
                member_id,
                account=before["account_id"],
                old_role=before["role"],
                new_role=after["role"],
                old_state=before["state"],
                new_state=after["state"],
            )
        identity_of(request).principals.forget_account(before["account_id"])
        return msgspec.convert(after, Member)

    @post("/invitations", opt={"scopes": ["members:write"], "people": True})
    async def invite(
        self,
        data: JSONBody[Invite],
        request: Request[Any, Any, Any],
        context: NamedDependency[TenantContext],
    ) -> InvitationSent:
        """Send somebody a link with which they become a member. An older link to the same address stops working."""
        identity, caller = identity_of(request), caller_of(request)
        async with identity.database.tenant_session(context) as session:
            role = await _role(session, data.role)
            rights.require_may_give(caller, role)
            if await rows.is_member(session, accounts.fold_email(data.email)):
                raise Conflict("This person is a member already.")
        return InvitationSent(await invitations.invite(identity, caller, data.email, role, where_of(request)))

    @get("/invitations", opt={"scopes": ["members:read"]})
    async def list_invitations(
        self,
        request: Request[Any, Any, Any],
        context: NamedDependency[TenantContext],
        after: FromQuery[UUID | None] = None,
        limit: FromQuery[Limit] = 100,
    ) -> list[Invitation]:
        """Invitations that wait to be accepted, the oldest first. ``after`` is the ``id`` of the last one of the page before."""
        async with identity_of(request).database.identity_session(context.tenant_id) as session:
            found = await invited.pending(session, context.tenant_id, after=after, limit=limit)
            await audit.record(session, context, "invitation.listed", "invitation", "all", count=len(found))
        return msgspec.convert(found, list[Invitation])

    @delete("/invitations/{invitation_id:uuid}", opt={"scopes": ["members:write"], "people": True})
    async def take_back(self, invitation_id: FromPath[UUID], request: Request[Any, Any, Any]) -> None:
        """Take an invitation back: its link stops working."""
        await invitations.take_back(identity_of(request), caller_of(request), invitation_id)


class RoleController(Controller):
    path = "/api/v1/roles"
    tags = ("People",)

    @get(opt={"scopes": ["roles:read"]})
    async def list_roles(self, session: NamedDependency[Session]) -> Roles:
        """All roles (there are few), and all that a role can allow."""
        return Roles(
            roles=[_shown(row) for row in await rows.list_roles(session)],
            permissions=[PermissionOut(key, description) for key, description in PERMISSIONS.items()],
        )

    @get("/{role_id:uuid}", opt={"scopes": ["roles:read"]})
    async def get_role(self, role_id: FromPath[UUID], session: NamedDependency[Session]) -> Role:
        """One role."""
        return _shown(await rows.role(session, role_id))

    @post(opt={"scopes": ["roles:write"], "step_up": True})
    async def create_role(
        self,
        data: JSONBody[NewRole],
        request: Request[Any, Any, Any],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Role:
        """Make a role of the business's own. It can allow no more than what one may do oneself."""
        caller = caller_of(request)
        rights.require_own(caller)
        permissions = rights.known(data.permissions)
        rights.require_held(caller, permissions)
        if data.key in SECOND_FACTOR_ROLES:
            raise Conflict("A role with this key exists.")
        if len(await rows.list_roles(session)) >= MAX_ROLES:
            raise Conflict(f"{MAX_ROLES} roles are possible. Remove one first.")
        role_id = await rows.add_role(session, data.key, data.name.strip(), permissions)
        await audit.record(
            session, context, "role.created", "role", role_id, key=data.key, permissions=permissions
        )
        return _shown(await rows.role(session, role_id))

    @patch("/{role_id:uuid}", opt={"scopes": ["roles:write"], "step_up": True})
    async def change_role(
        self,
        role_id: FromPath[UUID],
        data: JSONBody[RoleChange],
        request: Request[Any, Any, Any],
        context: NamedDependency[TenantContext],
    ) -> Role:
        """Change a role of the business's own; for those who have it at once."""
        permissions = None if data.permissions is None else rights.known(data.permissions)
        async with transaction(request, context) as session:
            before = await rows.role(session, role_id, lock=True)
            rights.require_may_change_role(caller_of(request), before, permissions)
            await rows.set_role(session, role_id, data.name.strip() if data.name else None, permissions)
            after = await rows.role(session, role_id)
            old, new = set(before["permissions"]), set(after["permissions"])
            await audit.record(
                session,
                context,
                "role.changed",
                "role",
                role_id,
                key=before["key"],
                added=sorted(new - old),
                removed=sorted(old - new),
                renamed=before["name"] != after["name"],
            )
        identity_of(request).principals.forget_tenant(context.tenant_id)
        return _shown(after)

    @delete("/{role_id:uuid}", opt={"scopes": ["roles:write"], "step_up": True})
    async def remove_role(
        self,
        role_id: FromPath[UUID],
        request: Request[Any, Any, Any],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> None:
        """Remove a role of the business's own that nobody has, or was invited to have."""
        before = await rows.role(session, role_id, lock=True)
        rights.require_may_change_role(caller_of(request), before, None)
        async with identity_of(request).database.identity_session(context.tenant_id) as looking:
            if await invited.waits_for_role(looking, context.tenant_id, role_id):
                raise Conflict("Somebody is invited to have this role. Take the invitation back first.")
        await rows.remove_role(session, role_id)
        await audit.record(session, context, "role.removed", "role", role_id, key=before["key"])


async def _role(session: Session, key: str) -> dict[str, Any]:
    try:
        return await rows.role_by_key(session, key)
    except NotFound:
        raise ValidationFailed("There is no such role.", field="role") from None


def _shown(row: dict[str, Any]) -> Role:
    return Role(
        id=row["id"],
        key=row["key"],
        name=row["name"],
        permissions=row["permissions"],
        system=row["system"],
        needs_second_factor=row["key"] in SECOND_FACTOR_ROLES,
    )
