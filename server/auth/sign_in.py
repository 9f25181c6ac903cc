"""Signing in: password, second factor, sessions, tokens. No HTTP: the controllers in server/api/auth.py speak that."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

import structlog

from server.auth import factors
from server.auth.caller import Caller
from server.auth.identity import Identity, Where
from server.auth.lockout import TooManyAttempts
from server.auth.passwords import Busy
from server.auth.principals import SESSION_PREFIX
from server.auth.rights import require_own_proof
from server.auth.tokens import new_opaque, opaque_digest
from storage.errors import Conflict, Forbidden, NotFound, Unauthenticated
from storage.repositories import accounts, sessions
from storage.repositories.accounts import Account, Membership
from storage.repositories.sessions import OneTime, Rotation
from storage.sql import Session
from storage.tenancy import PLATFORM_TENANT

log = structlog.get_logger(__name__)

Kind = Literal["browser", "program"]
CHALLENGE_LIFE = timedelta(minutes=5)
CHALLENGE_TRIES = 5
GRACE = timedelta(seconds=10)
WRONG = "E-mail or password is wrong."
_REFRESH, _CHALLENGE = "rfr", "mfa"


@dataclass(frozen=True)
class SignedIn:
    """A session and what its holder needs: a cookie, or tokens."""

    session_id: UUID
    account: Account
    tenant_slug: str | None
    kind: Kind
    cookie: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    device_cookie: str | None = None


@dataclass(frozen=True)
class Challenge:
    """The password was right; now one of the second factors."""

    token: str
    factors: list[str]
    passkey_options: dict[str, Any] | None


async def by_password(
    identity: Identity, email: str, password: str, tenant: str | None, kind: Kind, where: Where
) -> SignedIn | Challenge:
    """First step.

    Raises:
        Unauthenticated: wrong password or unknown person; the two look and take the same.
        Forbidden: right password, but the e-mail address is not verified.
        TooManyAttempts, Busy: later.
    """
    # First of all: in a flood of guesses most end here, and must cost neither the database nor Redis.
    identity.passwords.require_room(where.ip)
    account_key = identity.guard.account_key(email)
    if delay := await identity.guard.before(account_key, where.ip, where.device_cookie):
        raise TooManyAttempts(delay.seconds)
    async with identity.database.identity_session() as session:
        account = await accounts.by_email(session, email)
    try:
        right = await identity.passwords.verify(
            account.password_hash if account else None, password, where.ip
        )
    except Busy:
        await identity.guard.withdrawn(account_key, where.ip, where.device_cookie)
        raise
    if not right or account is None or account.state != "active":
        log.warning("sign_in_failed", step="password", whose=account_key)
        await identity.guard.failed(account_key, where.ip, where.device_cookie)
        raise Unauthenticated(WRONG)
    await identity.guard.succeeded(account_key, where.ip, where.device_cookie)
    if account.email_verified_at is None:
        raise Forbidden(
            "Verify your e-mail address first. The link is in the mail that we sent.", reason="email"
        )
    if account.password_hash and identity.passwords.needs_rehash(account.password_hash):
        with suppress(Busy):  # at the next sign-in then
            fresh = await identity.passwords.hash(password, where.ip)
            async with identity.database.identity_session() as session:
                await accounts.set_password(session, account.id, fresh, end_proofs=False)
    async with identity.database.identity_session() as session:
        if account.has_second_factor:
            return await challenge(identity, session, account, ["pwd"], tenant, kind, where)
        return await open_session(identity, session, account, ["pwd"], tenant, kind, where)


async def challenge(
    identity: Identity,
    session: Session,
    account: Account,
    amr: list[str],
    tenant: str | None,
    kind: Kind,
    where: Where,
) -> Challenge:
    """Remember that the first step was taken, for five minutes and five tries."""
    token = new_opaque(_CHALLENGE)
    possible, options, state = await factors.offered(identity, session, account, where)
    await sessions.add_one_time(
        session,
        "second_factor",
        token.digest,
        CHALLENGE_LIFE,
        account_id=account.id,
        payload={"amr": amr, "tenant": tenant, "kind": kind, **state},
    )
    return Challenge(token.clear, possible, options)


async def by_second_factor(identity: Identity, token: str, proof: factors.Proof, where: Where) -> SignedIn:
    """Second step.

    Raises:
        Unauthenticated: the challenge is over, or the proof wrong.
        TooManyAttempts: later.
    """
    digest = opaque_digest(_CHALLENGE, token)
    async with identity.database.identity_session() as session:
        found: OneTime | None = (
            await sessions.try_one_time(session, "second_factor", digest, CHALLENGE_TRIES) if digest else None
        )
    if found is None or found.account_id is None:
        raise Unauthenticated("This sign-in has expired. Start again with e-mail and password.")
    account_key = identity.guard.account_key("second-factor", str(found.account_id))
    if delay := await identity.guard.before(account_key, where.ip, where.device_cookie):
        raise TooManyAttempts(delay.seconds)
    async with identity.database.identity_session() as session:
        account = await accounts.by_id(session, found.account_id)
        method = await factors.proven(identity, session, account, proof, found.payload, where)
        # The challenge is used up in the same transaction as the code: two answers at once cannot both pass.
        if (
            method is not None
            and account.state == "active"
            and await sessions.end_one_time(session, found.id)
        ):
            signed_in = await open_session(
                identity,
                session,
                account,
                [*found.payload["amr"], method],
                found.payload["tenant"],
                found.payload["kind"],
                where,
            )
        else:
            signed_in = None
    if signed_in is None:
        log.warning("sign_in_failed", step="second factor", account_id=str(found.account_id))
        await identity.guard.failed(account_key, where.ip, where.device_cookie)
        raise Unauthenticated("The code is wrong or was used before.")
    await identity.guard.succeeded(account_key, where.ip, where.device_cookie)
    return signed_in


async def open_session(
    identity: Identity,
    session: Session,
    account: Account,
    amr: list[str],
    tenant: str | None,
    kind: Kind,
    where: Where,
) -> SignedIn:
    """A new session in the business that was asked for, else in the first that is open to the person.

    Raises:
        Unauthenticated: the person is no member of the business that was asked for; it looks like a wrong password.
    """
    chosen = _choose(await accounts.memberships(session, account.id), tenant)
    cookie = new_opaque(SESSION_PREFIX) if kind == "browser" else None
    if cookie is not None and where.session_cookie is not None:
        await _end_replaced(identity, session, where.session_cookie, where)
    place = await identity.place(where)
    known = await sessions.known_device(session, account.id, where.device, place)
    settings = identity.settings
    session_id = await sessions.begin(
        session,
        account_id=account.id,
        tenant_id=chosen.tenant_id if chosen else None,
        kind=kind,
        token_hash=cookie.digest if cookie else None,
        security_version=account.security_version,
        amr=amr,
        life=timedelta(hours=settings.session_hours)
        if kind == "browser"
        else timedelta(days=settings.refresh_days),
        device=where.device,
        place=place,
    )
    await accounts.signed_in(session, account.id)
    if not known:
        await identity.tell(
            session, account, "new_sign_in", str(session_id), where, device=where.device, country=place
        )
    await identity.record(
        session,
        account.id,
        "session.opened",
        where,
        tenant_id=chosen.tenant_id if chosen else None,
        sid=str(session_id),
        amr=amr,
    )
    device = identity.guard.issue_device(identity.guard.account_key(account.email))
    slug = chosen.slug if chosen else None
    if cookie is not None:
        return SignedIn(session_id, account, slug, kind, cookie=cookie.clear, device_cookie=device)
    refresh = new_opaque(_REFRESH)
    await sessions.add_refresh(session, session_id, 1, refresh.digest)
    access = await _access_token(identity, session, session_id)
    return SignedIn(
        session_id,
        account,
        slug,
        kind,
        access_token=access,
        refresh_token=refresh.clear,
        device_cookie=device,
    )


async def _end_replaced(identity: Identity, session: Session, shown: str, where: Where) -> None:
    """The session whose cookie is about to be overwritten: nobody could sign out of it any more (ASVS 7.2.4)."""
    digest = opaque_digest(SESSION_PREFIX, shown)
    old = await sessions.by_token(session, digest) if digest else None
    if old is not None and await sessions.revoke(session, old.session_id, "signed in anew"):
        await identity.record(session, old.account_id, "session.closed", where, sid=str(old.session_id))
        identity.principals.forget(old.session_id)


def _choose(memberships: list[Membership], tenant: str | None) -> Membership | None:
    if tenant is not None:
        found = next((one for one in memberships if one.slug == tenant), None)
        if found is None or found.member_state != "active":
            raise Unauthenticated(WRONG)
        return found
    usable = [one for one in memberships if one.member_state == "active"]
    return next((one for one in usable if one.state == "active"), usable[0] if usable else None)


async def _access_token(identity: Identity, session: Session, session_id: UUID) -> str:
    standing = await sessions.by_id(session, session_id)
    assert standing is not None
    return identity.tokens.issue(
        account_id=standing.account_id,
        tenant_id=standing.tenant_id or PLATFORM_TENANT,
        session_id=session_id,
        security_version=standing.session_security,
        amr=standing.amr,
        auth_time=standing.authenticated_at,
    )


class TokenRecentlyRotated(Conflict):
    """The refresh token was exchanged seconds ago: the answer got lost, or another tab was quicker."""


async def refresh(identity: Identity, token: str, where: Where) -> tuple[str, str]:
    """A new access token and the next refresh token of the family.

    Raises:
        Unauthenticated: unknown, or its session has ended. A token that was used before ends the whole family.
        TokenRecentlyRotated: exchanged within the last ten seconds; use the newer one.
    """
    shown = opaque_digest(_REFRESH, token)
    if shown is None:
        raise Unauthenticated("This refresh token is not valid.")
    fresh = new_opaque(_REFRESH)
    reused: Account | None = None
    async with identity.database.identity_session() as session:
        outcome, session_id = await sessions.rotate_refresh(session, shown, fresh.digest, grace=GRACE)
        standing = await sessions.by_id(session, session_id) if session_id else None
        if standing is not None and outcome is Rotation.REUSED:
            # The thief or the owner: nobody can tell, so both are out, and the owner hears of it.
            if await sessions.revoke(session, standing.session_id, "refresh token used twice"):
                reused = await accounts.by_id(session, standing.account_id)
                await identity.tell(
                    session, reused, "refresh_reuse", str(standing.session_id), where, device=where.device
                )
                await identity.record(
                    session, reused.id, "session.refresh_reused", where, sid=str(standing.session_id)
                )
            identity.principals.forget(standing.session_id)
        elif standing is not None and outcome is Rotation.ROTATED and _open(standing):
            await sessions.touch(session, standing.session_id)
            return await _access_token(identity, session, standing.session_id), fresh.clear
    if outcome is Rotation.RECENT:
        raise TokenRecentlyRotated("This refresh token was exchanged a moment ago. Use the newer one.")
    raise Unauthenticated("This refresh token is not valid. Sign in again.")


def _open(standing: sessions.Standing) -> bool:
    return (
        not standing.revoked
        and standing.now < standing.expires_at
        and standing.session_security == standing.account_security
        and standing.account_state == "active"
    )


async def sign_out(identity: Identity, caller: Caller, where: Where) -> None:
    """End the caller's own session."""
    assert caller.session_id is not None
    async with identity.database.identity_session() as session:
        if await sessions.revoke(session, caller.session_id, "signed out"):
            await identity.record(
                session, caller.account_id, "session.closed", where, sid=str(caller.session_id)
            )
    identity.principals.forget(caller.session_id)


async def switch_tenant(
    identity: Identity, caller: Caller, slug: str, where: Where
) -> tuple[str | None, str | None]:
    """Go on in another business: (new cookie, new access token); what was issued for the old one ends.

    Raises:
        NotFound: the person is no member of it.
    """
    assert caller.session_id is not None
    assert caller.account_id is not None
    assert caller.standing is not None
    if caller.standing.impersonation_id is not None:
        raise Forbidden("An operator's session belongs to one business.")
    require_own_proof(caller)
    async with identity.database.identity_session() as session:
        found = next(
            (
                one
                for one in await accounts.memberships(session, caller.account_id)
                if one.slug == slug and one.member_state == "active"
            ),
            None,
        )
        if found is None:
            raise NotFound("You are not a member of such a business.")
        cookie = new_opaque(SESSION_PREFIX) if caller.standing.kind == "browser" else None
        await sessions.renew(
            session, caller.session_id, cookie.digest if cookie else None, tenant_id=found.tenant_id
        )
        await identity.record(
            session, caller.account_id, "session.tenant_switched", where, tenant=str(found.tenant_id)
        )
        access = None if cookie else await _access_token(identity, session, caller.session_id)
    identity.principals.forget(caller.session_id)
    return (cookie.clear if cookie else None), access


async def step_up(
    identity: Identity, caller: Caller, proof: factors.Proof, where: Where
) -> tuple[str | None, str | None]:
    """Prove anew that it is them, before a dangerous act: (new cookie, new access token).

    People with a second factor prove with that one, others with their password.

    Raises:
        Unauthenticated: the proof is wrong.
        TooManyAttempts: later.
    """
    assert caller.session_id is not None
    assert caller.account_id is not None
    assert caller.standing is not None
    account_key = identity.guard.account_key("second-factor", str(caller.account_id))
    if delay := await identity.guard.before(account_key, where.ip, where.device_cookie):
        raise TooManyAttempts(delay.seconds)
    cookie = new_opaque(SESSION_PREFIX) if caller.standing.kind == "browser" else None
    method: str | None = None
    async with identity.database.identity_session() as session:
        account = await accounts.by_id(session, caller.account_id)
    if proof.password is not None and not account.has_second_factor:
        try:  # no transaction is open meanwhile: others may be waiting for the hashing threads
            right = await identity.passwords.verify(account.password_hash, proof.password, where.ip)
        except Busy:
            await identity.guard.withdrawn(account_key, where.ip, where.device_cookie)
            raise
        method = "pwd" if right else None
    async with identity.database.identity_session() as session:
        if proof.password is None:
            state: dict[str, Any] = {}
            if proof.challenge is not None:
                digest = opaque_digest(factors.PASSKEY_PREFIX, proof.challenge)
                used = await sessions.use_one_time(session, "step_up", digest) if digest else None
                state = used.payload if used and used.account_id == account.id else {}
            method = await factors.proven(identity, session, account, proof, state, where)
        if method is not None:
            amr = sorted({*caller.standing.amr, method})
            await sessions.renew(session, caller.session_id, cookie.digest if cookie else None, amr=amr)
            await identity.record(
                session,
                account.id,
                "session.stepped_up",
                where,
                sid=str(caller.session_id),
                method=method,
            )
            access = None if cookie else await _access_token(identity, session, caller.session_id)
    if method is None:
        log.warning("sign_in_failed", step="step up", account_id=str(caller.account_id))
        await identity.guard.failed(account_key, where.ip, where.device_cookie)
        raise Unauthenticated("That did not prove that it is you.")
    await identity.guard.succeeded(account_key, where.ip, where.device_cookie)
    identity.principals.forget(caller.session_id)
    return (cookie.clear if cookie else None), access
