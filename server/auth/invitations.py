"""Inviting people into a business. What the link does is in server/auth/accounts.py (``accept_invitation``)."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from server.auth.caller import Caller
from server.auth.identity import INVITATION_LIFE, Identity, Where
from server.auth.rights import require_may_give, require_own
from storage.errors import Conflict, NotFound
from storage.repositories import accounts, audit, invitations, members, tenants
from storage.tenancy import pinned

MAX_PENDING = 200
AGAIN_SECONDS = 60
"""So many a business and so often an address: our mails are not for filling other people's mailboxes."""


async def invite(
    identity: Identity, caller: Caller, email: str, role: Mapping[str, Any], where: Where
) -> UUID:
    """Send somebody a link with which they become a member; older links to them stop working. The invitation's id.

    Args:
        role: a row of storage.repositories.members.

    Raises:
        Forbidden: the caller may not give this role.
        Conflict: too many wait, or this address was invited a moment ago.
    """
    require_may_give(caller, role)
    assert caller.account_id is not None
    tenant_id, folded = caller.context.tenant_id, accounts.fold_email(email)
    async with identity.database.identity_session() as session:
        if await invitations.count(session, tenant_id) >= MAX_PENDING:
            raise Conflict(f"{MAX_PENDING} invitations wait to be accepted. Take some back first.")
        if await invitations.sent_lately(session, tenant_id, folded, AGAIN_SECONDS):
            raise Conflict("This address was invited a moment ago. Wait a minute.")
        await invitations.end_for(session, tenant_id, folded)
        business = await tenants.get(session, tenant_id)
        inviter = await accounts.by_id(session, caller.account_id)
        invitation_id = await identity.send_link(
            session,
            "invitation",
            INVITATION_LIFE,
            where,
            account=None,
            recipient=folded,
            language=business.languages[0],
            values={"inviter": inviter.name, "tenant": business.name, "role": role["name"]},
            tenant_id=tenant_id,
            payload={"email": folded, "role_id": str(role["id"]), "by": caller.context.actor},
        )
        async with pinned(session, tenant_id):
            await audit.record(
                session, caller.context, "member.invited", "invitation", invitation_id, role=role["key"]
            )
    return invitation_id


async def take_back(identity: Identity, caller: Caller, invitation_id: UUID) -> None:
    """End an invitation that waits.

    Raises:
        NotFound: missing, used, expired, or another business's.
        Forbidden: it is for a role that the caller may not give.
    """
    require_own(caller)
    tenant_id = caller.context.tenant_id
    async with identity.database.identity_session(tenant_id) as session:
        role_id = await invitations.end(session, tenant_id, invitation_id)
        if role_id is None:
            raise NotFound("No such invitation.")
        role = await members.role_of(session, tenant_id, role_id)
        if role is not None:
            require_may_give(caller, role)
        await audit.record(
            session,
            caller.context,
            "member.invitation_withdrawn",
            "invitation",
            invitation_id,
            role=None if role is None else role["key"],
        )
