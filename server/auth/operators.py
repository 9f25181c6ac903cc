"""A platform operator inside a tenant: with a reason, a second operator's yes, few permissions, for a short time, and on record in the
tenant's own audit log.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from server.auth.caller import Caller
from server.auth.identity import Identity, Where
from storage.errors import Conflict, Forbidden, NotFound
from storage.repositories import accounts, audit, sessions, tenants
from storage.sql import Session
from storage.tenancy import PLATFORM_TENANT, TenantContext, pinned


async def request(
    identity: Identity,
    caller: Caller,
    *,
    tenant_id: UUID,
    reason: str,
    permissions: Sequence[str],
    minutes: int,
    where: Where,
) -> dict[str, Any]:
    """Ask.

    Raises:
        NotFound: no such business.
    """
    assert caller.account_id is not None
    async with identity.database.identity_session() as session:
        await tenants.get(session, tenant_id)
        if tenant_id == PLATFORM_TENANT:
            raise NotFound("No such business.")
        made = await tenants.request_impersonation(
            session,
            tenant_id=tenant_id,
            requested_by=caller.account_id,
            reason=reason,
            permissions=sorted(set(permissions)),
            minutes=minutes,
        )
        await _record(session, caller, "impersonation.requested", tenant_id, made, where, reason)
        return await tenants.impersonation(session, made)


async def decide(
    identity: Identity, caller: Caller, impersonation_id: UUID, approve: bool, where: Where
) -> dict[str, Any]:
    """Agree or refuse.

    Raises:
        Forbidden: it is one's own request.
        Conflict: it was decided.
    """
    assert caller.account_id is not None
    async with identity.database.identity_session() as session:
        found = await tenants.impersonation(session, impersonation_id)
        if found["requested_by"] == caller.account_id:
            raise Forbidden("A second operator has to decide this.")
        state = "approved" if approve else "refused"
        await tenants.decide_impersonation(session, impersonation_id, state, caller.account_id)
        await _record(
            session,
            caller,
            f"impersonation.{state}",
            found["tenant_id"],
            impersonation_id,
            where,
            found["reason"],
        )
        return await tenants.impersonation(session, impersonation_id)


async def begin(identity: Identity, caller: Caller, impersonation_id: UUID, where: Where) -> str:
    """An access token for the tenant, good until the agreed time is over.

    Raises:
        Forbidden: somebody else asked for it.
        Conflict: nobody has agreed, or the time is over.
    """
    assert caller.account_id is not None
    assert caller.standing is not None
    async with identity.database.identity_session() as session:
        found = await tenants.impersonation(session, impersonation_id)
        if found["requested_by"] != caller.account_id:
            raise Forbidden("Somebody else asked for this.")
        if found["state"] != "approved" or found["expires_at"] <= caller.standing.now:
            raise Conflict("Nobody has agreed to this, or its time is over.")
        account = await accounts.by_id(session, caller.account_id)
        session_id = await sessions.begin(
            session,
            account_id=caller.account_id,
            tenant_id=found["tenant_id"],
            kind="program",
            token_hash=None,
            security_version=account.security_version,
            amr=list(caller.standing.amr),
            life=timedelta(minutes=found["minutes"]),
            device=where.device,
            place="operator",
            impersonation_id=impersonation_id,
        )
        standing = await sessions.by_id(session, session_id)
        assert standing is not None
        await _record(
            session,
            caller,
            "impersonation.began",
            found["tenant_id"],
            impersonation_id,
            where,
            found["reason"],
        )
    return identity.tokens.issue(
        account_id=caller.account_id,
        tenant_id=found["tenant_id"],
        session_id=session_id,
        security_version=standing.session_security,
        amr=standing.amr,
        auth_time=standing.authenticated_at,
    )


async def end(identity: Identity, caller: Caller, impersonation_id: UUID, where: Where) -> None:
    """End it, and the sessions that it has opened."""
    async with identity.database.identity_session() as session:
        found = await tenants.impersonation(session, impersonation_id)
        await tenants.end_impersonation(session, impersonation_id)
        await _record(
            session,
            caller,
            "impersonation.ended",
            found["tenant_id"],
            impersonation_id,
            where,
            found["reason"],
        )
    identity.principals.forget_tenant(found["tenant_id"])


async def _record(
    session: Session,
    caller: Caller,
    action: str,
    tenant_id: UUID,
    impersonation_id: UUID,
    where: Where,
    reason: str,
) -> None:
    """In the operators' log and in the tenant's own."""
    for one in (PLATFORM_TENANT, tenant_id):
        context = TenantContext(one, f"operator:{caller.account_id}", where.request_id)
        async with pinned(session, one):
            await audit.record(session, context, action, "impersonation", impersonation_id, reason=reason)
