"""Signing in with a business's own identity provider.

The provider says who somebody is there; which account that is was said by its owner, who linked the two while signed in. Nobody is let in
by an e-mail address, and no account comes into being here. The browser that comes back must be the one that was sent away: it
has a cookie, and ``state`` names a token, stored with that cookie's hash, that works once.
"""

import hashlib
import hmac
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.auth import oidc, sign_in
from server.auth.caller import Caller
from server.auth.identity import Identity, Where
from server.auth.oidc import OidcProvider
from server.auth.rights import FEDERATED, require_own_proof
from server.auth.sign_in import Challenge, SignedIn
from server.auth.tokens import new_opaque, opaque_digest
from storage.errors import AppError, Conflict, Forbidden, NotFound, Unauthenticated, ValidationFailed
from storage.outbound import HTTPS, check_url, guarded_client
from storage.repositories import accounts, audit, sessions, sso
from storage.repositories.accounts import Account
from storage.repositories.sessions import OneTime
from storage.repositories.sso import Connection
from storage.sql import Session
from storage.tenancy import TenantContext

STATE_LIFE = timedelta(minutes=10)
CALLBACK = "/api/v1/auth/sso/callback"
MAX_LINKED = 20
_PREFIX = "sso"
_SECOND_FACTORS = frozenset({"mfa", "otp", "hwk"})
_TIMEOUT, _MAX_BYTES = 10.0, 512 * 1024
_NOT_LINKED = (
    "This sign-in is linked with no account here. Sign in with your password, then link it in your account."
)


class SsoSettings(BaseSettings):
    """Read from the environment when somebody signs in."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    sso_private_providers: str = Field(
        default="",
        description="Identity providers in the operator's own network, as host:port, comma-separated; also asked over http.",
    )

    @property
    def private(self) -> frozenset[str]:
        return frozenset(
            part.strip().lower() for part in self.sso_private_providers.split(",") if part.strip()
        )


@dataclass(frozen=True)
class Begun:
    """Where to send the browser, and the cookie by which it is known when it comes back."""

    url: str
    cookie: str


@dataclass(frozen=True)
class Linked:
    """The provider's person is linked with the account that asked for it."""

    account_id: UUID


def check_issuer(issuer: str) -> str:
    """An issuer's address as somebody entered it, unchanged: it is compared byte by byte with what the provider says.

    Raises:
        ValidationFailed, OutboundRefused: it is not the https address of a public host, or has a query or fragment.
    """
    private = SsoSettings().private
    parts = urlsplit(check_url(issuer, schemes=_schemes(private), allow_private=private))
    if parts.query or "?" in issuer or "#" in issuer:
        raise ValidationFailed("An issuer has no query and no fragment.", field="issuer")
    if parts.scheme != "https" and f"{parts.hostname}:{parts.port or 80}" not in private:
        raise ValidationFailed("An issuer's address begins with https://.", field="issuer")
    return issuer


def _schemes(private: frozenset[str]) -> frozenset[str]:
    return HTTPS | {"http"} if private else HTTPS


def _client() -> AbstractAsyncContextManager[httpx.AsyncClient]:
    private = SsoSettings().private
    client = guarded_client(
        timeout=_TIMEOUT,
        max_bytes=_MAX_BYTES,
        allow_private=private,
        schemes=_schemes(private),
        verify=_authorities(),
    )
    client.event_hooks = {"response": [_refuse_redirected]}
    return client


@cache
def _authorities() -> ssl.SSLContext:
    """Reading them costs some ten milliseconds of a processor."""
    return httpx.create_ssl_context(trust_env=False)


async def _refuse_redirected(response: httpx.Response) -> None:
    """The guarded transport follows redirects; a provider's answers must come from where its description says."""
    if response.extensions.get("final_url") != str(response.request.url):
        raise Unauthenticated(
            "The identity provider sends us elsewhere. Tell your administrator.", reason="redirect"
        )


async def begin(identity: Identity, slug: str, connection_id: UUID | None, where: Where) -> Begun:
    """Send somebody to their business's provider.

    Raises:
        NotFound: no such business, it is not active, or it has no such connection; the three look the same.
        UpstreamUnavailable, Unauthenticated, OutboundRefused: the provider does not answer, or not as it must.
    """
    async with identity.database.identity_session() as session:
        found = await sso.first_of(session, slug, connection_id)
    if found is None:
        raise NotFound("This business has no single sign-on.")
    return await _begin(identity, found, where, link=None)


async def begin_link(identity: Identity, caller: Caller, connection_id: UUID | None, where: Where) -> Begun:
    """Send somebody who is signed in to their business's provider, to link who they are there with their account.

    Raises:
        Forbidden: an operator inside the business, somebody who may do nothing there, or whom single sign-on let in.
        NotFound, Conflict, UpstreamUnavailable, Unauthenticated: as ``begin``, or enough are linked.
    """
    require_own_proof(caller)
    assert caller.account_id is not None
    assert caller.standing is not None
    if caller.standing.impersonation_id is not None or caller.standing.member_state != "active":
        raise Forbidden("Only members of the business can link its single sign-on.")
    async with identity.database.identity_session() as session:
        found = await sso.first_of(session, caller.standing.tenant_slug or "", connection_id)
        if len(await sso.identities(session, caller.account_id)) >= MAX_LINKED:
            raise Conflict(f"{MAX_LINKED} identities can be linked. Remove one first.")
    if found is None:
        raise NotFound("This business has no single sign-on.")
    return await _begin(identity, found, where, link=caller)


async def _begin(identity: Identity, found: Connection, where: Where, link: Caller | None) -> Begun:
    secret = await _secret(identity, found)
    redirect_uri = where.base_url + CALLBACK
    async with _client() as client:
        started = await OidcProvider(found.issuer, found.client_id, secret, client=client).start(redirect_uri)
    cookie = new_opaque(_PREFIX)
    async with identity.database.identity_session() as session:
        await sessions.add_one_time(
            session,
            "oidc",
            _state_digest(started.state),
            STATE_LIFE,
            account_id=link.account_id if link else None,
            tenant_id=found.tenant_id,
            payload={
                "connection": str(found.id),
                "cookie": cookie.digest.hex(),
                "nonce": started.nonce,
                "verifier": started.verifier,
                "redirect_uri": redirect_uri,
                "session": str(link.session_id) if link else None,
            },
        )
    return Begun(started.url, cookie.clear)


def _state_digest(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()


async def _secret(identity: Identity, found: Connection) -> str:
    async with identity.database.identity_session(found.tenant_id) as session:
        return await sso.open_secret(session, found)


async def finish(
    identity: Identity, answer: Mapping[str, str], cookie: str | None, where: Where
) -> SignedIn | Challenge | Linked:
    """The browser is back. Whatever comes of it, its ``state`` is used up.

    Args:
        answer: the query of the address that it was sent to.
        cookie: that of ``begin``.

    Raises:
        Unauthenticated: not the browser that was sent, or the provider's word is not good.
        Forbidden: the provider's person is linked with no account that may enter this business.
        Conflict: (linking) they are linked with somebody else's.
        UpstreamUnavailable, OutboundRefused: the provider does not answer, or not from where it may.
    """
    state = answer.get("state", "")
    async with identity.database.identity_session() as session:
        used = await sessions.use_one_time(session, "oidc", _state_digest(state))
    if used is None or used.tenant_id is None:
        raise Unauthenticated("This sign-in has expired or was used. Start again.", reason="state")
    connection_id = UUID(used.payload["connection"])
    try:
        return await _finish(identity, used, connection_id, answer, state, cookie, where)
    except AppError as refused:
        # In a transaction of its own: the one in which it was refused is gone.
        async with identity.database.identity_session(used.tenant_id) as session:
            await audit.record(
                session,
                TenantContext(
                    used.tenant_id,
                    f"user:{used.account_id}" if used.account_id else "user:unknown",
                    where.request_id,
                ),
                "sso.refused",
                "sso_connection",
                connection_id,
                code=refused.code,
                why=refused.details.get("reason"),
                device=where.device,
            )
        raise


async def _finish(
    identity: Identity,
    used: OneTime,
    connection_id: UUID,
    answer: Mapping[str, str],
    state: str,
    cookie: str | None,
    where: Where,
) -> SignedIn | Challenge | Linked:
    assert used.tenant_id is not None
    shown = opaque_digest(_PREFIX, cookie) if cookie else None
    if shown is None or not hmac.compare_digest(shown, bytes.fromhex(used.payload["cookie"])):
        raise Unauthenticated("This sign-in was begun in another browser. Start again.", reason="browser")
    async with identity.database.identity_session() as session:
        found = await sso.by_id(session, used.tenant_id, connection_id)
    if found is None or not found.enabled or found.tenant_state != "active":
        raise Forbidden("This single sign-on is closed.", reason="closed")
    secret = await _secret(identity, found)
    async with _client() as client:
        provider = OidcProvider(found.issuer, found.client_id, secret, client=client)
        person = await provider.finish(
            answer,
            used.payload["redirect_uri"],
            state=state,
            nonce=used.payload["nonce"],
            verifier=used.payload["verifier"],
        )
    async with identity.database.identity_session() as session:
        if used.account_id is not None:
            return await _link(identity, session, used, found, person, where)
        return await _enter(identity, session, found, person, where)


async def _enter(
    identity: Identity, session: Session, found: Connection, person: oidc.Identity, where: Where
) -> SignedIn | Challenge:
    account_id = await sso.account_of(session, found.id, person.subject)
    account = await accounts.by_id(session, account_id) if account_id else None
    if account is None or not await _is_member(session, account, found):
        raise Forbidden(_NOT_LINKED, reason="not_linked")
    amr = [FEDERATED, *(["mfa"] if _SECOND_FACTORS & set(person.amr) else [])]
    if account.has_second_factor and "mfa" not in amr:
        outcome: SignedIn | Challenge = await sign_in.challenge(
            identity, session, account, amr, found.tenant_slug, "browser", where
        )
    else:
        outcome = await sign_in.open_session(
            identity, session, account, amr, found.tenant_slug, "browser", where
        )
    await identity.record(
        session,
        account.id,
        "sso.accepted",
        where,
        tenant_id=found.tenant_id,
        connection=found.id,
        second_factor="mfa" in amr,
    )
    return outcome


async def _link(
    identity: Identity,
    session: Session,
    used: OneTime,
    found: Connection,
    person: oidc.Identity,
    where: Where,
) -> Linked:
    assert used.account_id is not None
    account = await accounts.by_id(session, used.account_id)
    standing = await sessions.by_id(session, UUID(used.payload["session"]))
    # Whoever signed out, or was signed out, while at the provider's has not asked for this any more.
    still = (
        standing is not None
        and not standing.revoked
        and standing.now < standing.expires_at
        and standing.session_security == standing.account_security
        and standing.tenant_id == found.tenant_id
    )
    if not still or not await _is_member(session, account, found):
        raise Forbidden("You are not signed in to this business any more.", reason="session")
    if await sso.link(session, found.id, person.subject, account.id) is not None:
        await identity.tell(
            session,
            account,
            "mfa_changed",
            f"sso:{used.id}",
            where,
            change="single sign-on of a business was linked",
        )
        await identity.record(
            session, account.id, "sso.linked", where, tenant_id=found.tenant_id, connection=found.id
        )
    return Linked(account.id)


async def _is_member(session: Session, account: Account, found: Connection) -> bool:
    """Whether the person may enter the connection's business, and no other one by it."""
    return account.state == "active" and any(
        one.tenant_id == found.tenant_id and one.member_state == "active" and one.state == "active"
        for one in await accounts.memberships(session, account.id)
    )


async def unlink(identity: Identity, caller: Caller, identity_id: UUID, where: Where) -> None:
    """Take one of one's own identities away (after a step-up).

    Raises:
        NotFound: none of one's own.
        Forbidden: single sign-on opened the session.
    """
    require_own_proof(caller)
    assert caller.account_id is not None
    async with identity.database.identity_session() as session:
        account = await accounts.by_id(session, caller.account_id)
        mine: dict[UUID, Any] = {one.id: one for one in await sso.identities(session, account.id)}
        await sso.unlink(session, account.id, identity_id)
        await identity.tell(
            session,
            account,
            "mfa_changed",
            f"sso-unlinked:{identity_id}",
            where,
            change="single sign-on of a business was removed",
        )
        tenant_id = mine[identity_id].tenant_id if identity_id in mine else None
        await identity.record(
            session, account.id, "sso.unlinked", where, tenant_id=tenant_id, identity=identity_id
        )
