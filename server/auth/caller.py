"""Who is asking: what follows from a session or a key, without the database and without HTTP."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from storage.errors import Forbidden, Unauthenticated
from storage.permissions import PLATFORM_PERMISSIONS, SECOND_FACTOR_ROLES
from storage.repositories.members import KeyStanding
from storage.repositories.sessions import Standing
from storage.tenancy import PLATFORM_TENANT, TenantContext

IDLE = timedelta(minutes=30)
"""A browser that asked nothing for so long is signed out (programs have their refresh tokens' life instead)."""
STEP_UP = timedelta(minutes=10)
RIGHTS_GIVING = frozenset({"members:write", "roles:write", "keys:write"})
SECOND_FACTORS = frozenset({"otp", "hwk", "rec", "mfa"})
"""Authentication methods (RFC 8176; ``rec`` is ours: a recovery code) that are more than a password."""

Via = Literal["cookie", "token", "key"]


@dataclass(frozen=True)
class Caller:
    """A person or a program, in a business.

    Attributes:
        context: tenant, actor and scopes, for everything that is done on their behalf.
        via: how they showed who they are.
        blocked: why a person who is signed in may do nothing here: ``no_tenant``, ``suspended``, ``pending``, ``not_member``,
            ``second_factor``, ``email``; None where they may.
    """

    context: TenantContext
    via: Via
    account_id: UUID | None = None
    session_id: UUID | None = None
    key_id: UUID | None = None
    standing: Standing | None = None
    blocked: str | None = None

    def fresh(self, now: datetime) -> bool:
        """Whether the person proved just now, with all they have, that it is them."""
        if self.standing is None:
            return False
        proven = bool(SECOND_FACTORS & set(self.standing.amr)) or not self.standing.has_second_factor
        return proven and now - self.standing.authenticated_at <= STEP_UP


_BLOCKED = {
    "no_tenant": "You are a member of no business. Ask for an invitation.",
    "suspended": "This business is suspended. Its data is kept; ask the platform's operators.",
    "pending": "This business waits until its owner has verified the e-mail address.",
    "not_member": "You are not a member of this business any more.",
    "second_factor": "Your role asks for a second factor. Set one up: POST /api/v1/auth/totp or /api/v1/auth/passkeys/options.",
    "email": "Verify your e-mail address first. The link is in the mail that we sent.",
}


def blocked(reason: str) -> Forbidden:
    """What a person is told who is signed in and may do nothing."""
    return Forbidden(_BLOCKED[reason], reason=reason)


def of_session(standing: Standing, via: Via, request_id: str | None, now: datetime) -> Caller:
    """The caller that a session stands for.

    Raises:
        Unauthenticated: the session has ended.
    """
    if (
        standing.revoked
        or now >= standing.expires_at
        or (standing.kind == "browser" and now - standing.last_seen_at >= IDLE)
        or standing.session_security != standing.account_security
        or standing.account_state != "active"
    ):
        raise Unauthenticated("Your session has ended. Sign in again.")
    reason = _reason(standing)
    impersonating = standing.impersonation_id is not None
    if impersonating and reason:
        raise Unauthenticated("The permission to act in this business has ended.")
    context = TenantContext(
        tenant_id=standing.tenant_id or PLATFORM_TENANT,
        actor=f"{'operator' if impersonating else 'user'}:{standing.account_id}",
        request_id=request_id,
        scopes=frozenset() if reason else _within(standing),
        reason=standing.reason if impersonating else None,
    )
    return Caller(context, via, standing.account_id, standing.session_id, None, standing, reason)


def _within(standing: Standing) -> frozenset[str]:
    """The role's permissions; those of the platform count in the platform's own tenant only, whatever a role's row says."""
    return frozenset(
        name
        for name in standing.permissions
        if (name in PLATFORM_PERMISSIONS) == (standing.tenant_id == PLATFORM_TENANT)
    )


def _reason(standing: Standing) -> str | None:
    if not standing.email_verified:
        return "email"
    if standing.tenant_id is None:
        return "no_tenant"
    if standing.tenant_state != "active":
        return "pending" if standing.tenant_state == "pending" else "suspended"
    if standing.member_state != "active":
        return "not_member"
    # A role of the business's own that hands out rights is as dangerous as an administrator.
    hands_out = RIGHTS_GIVING & set(standing.permissions)
    needed = standing.factor_required or standing.role in SECOND_FACTOR_ROLES or bool(hands_out)
    if needed and standing.impersonation_id is None and not SECOND_FACTORS & set(standing.amr):
        return "second_factor"
    return None


def of_key(key: KeyStanding, request_id: str | None) -> Caller:
    """The caller that an API key stands for; that it is the right key was checked.

    Raises:
        Unauthenticated: it is expired or revoked, or its service account disabled.
        Forbidden: the business is suspended.
    """
    if key.revoked or key.expired or key.disabled:
        raise Unauthenticated("This API key is not valid any more.")
    if key.tenant_state != "active":
        raise blocked("suspended")
    context = TenantContext(key.tenant_id, f"key:{key.service_account_id}", request_id, frozenset(key.scopes))
    return Caller(context, "key", key_id=key.key_id)
