"""Signing in and out, tokens, sessions."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.params import FromPath, JSONBody

from server.api.auth.request import identity_of, set_cookie, set_session, where_of
from server.api.fields import Code, Email, JsonObject, Opaque, Password, Slug
from server.auth import factors, sign_in
from server.auth.cookies import device_cookie, ended_cookie
from server.auth.factors import Proof
from server.auth.guard import caller_of
from server.auth.sign_in import Challenge, SignedIn
from storage.errors import NotFound, ValidationFailed
from storage.repositories import accounts, sessions


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    """``tenant`` is the business's short name, wanted where one works in several. ``kind``: a browser gets a cookie, a program tokens."""

    email: Email
    password: Password
    tenant: Slug | None = None
    kind: Literal["browser", "program"] = "program"


class SecondFactor(msgspec.Struct, forbid_unknown_fields=True):
    """The challenge of the first step, and one of the three."""

    challenge: Opaque
    code: Code | None = None
    recovery_code: Opaque | None = None
    passkey: JsonObject | None = None


class Answer(msgspec.Struct, omit_defaults=True):
    """``signed_in``, with tokens for a program; or ``second_factor``, with what to answer at /login/second-factor.

    Send the token as ``Authorization: Bearer <access_token>``; it lasts ``expires_in`` seconds.
    """

    status: Literal["signed_in", "second_factor"]
    tenant: str | None = None
    access_token: str | None = None
    expires_in: int | None = None
    refresh_token: str | None = None
    token_type: str | None = None
    challenge: str | None = None
    factors: list[str] | None = None
    passkey_options: JsonObject | None = None


class RefreshToken(msgspec.Struct, forbid_unknown_fields=True):
    refresh_token: Opaque


class Tokens(msgspec.Struct):
    """``refresh_token`` is good once: keep the new one."""

    access_token: str
    expires_in: int
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105  # the scheme's name


class Business(msgspec.Struct, forbid_unknown_fields=True):
    tenant: Slug


class Membership(msgspec.Struct):
    tenant_id: UUID
    slug: str
    name: str
    role: str
    state: str


class Me(msgspec.Struct):
    """``scopes`` is what the caller may do in ``tenant_id`` now; ``blocked`` says why that may be nothing."""

    tenant_id: UUID
    actor: str
    scopes: list[str]
    email: str
    name: str
    blocked: str | None
    second_factor: bool
    amr: list[str]
    memberships: list[Membership]


class SessionOut(msgspec.Struct):
    """A place where one is signed in."""

    id: UUID
    kind: str
    device: str
    place: str
    amr: list[str]
    tenant: str | None
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    current: bool


class StepUpStart(msgspec.Struct):
    factors: list[str]
    challenge: str | None
    passkey_options: JsonObject | None


class StepUp(msgspec.Struct, forbid_unknown_fields=True):
    """One of the four: the password counts for people without a second factor."""

    code: Code | None = None
    recovery_code: Opaque | None = None
    passkey: JsonObject | None = None
    password: Password | None = None
    challenge: Opaque | None = None


class Renewed(msgspec.Struct, omit_defaults=True):
    """A browser has a new cookie; a program gets a new access token, and its refresh token goes on."""

    access_token: str | None = None
    expires_in: int | None = None


class SignInController(Controller):
    path = "/api/v1/auth"
    tags = ("Signing in",)
    # Also where the route is public: the answer is somebody's tokens (RFC 6749, 5.1).
    response_headers = {"cache-control": "no-store"}  # noqa: RUF012  # Litestar reads this plain class attribute

    @post("/login", opt={"public": True, "limit": "login", "idempotent": False}, status_code=200)
    async def login(self, data: JSONBody[Credentials], request: Request[Any, Any, Any]) -> Answer:
        """E-mail and password. The answer is the same for a wrong password and an unknown person."""
        outcome = await sign_in.by_password(
            identity_of(request), data.email, data.password, data.tenant, data.kind, where_of(request)
        )
        return _answer(request, outcome)

    @post(
        "/login/second-factor",
        opt={"public": True, "limit": "login", "idempotent": False},
        status_code=200,
    )
    async def second_factor(self, data: JSONBody[SecondFactor], request: Request[Any, Any, Any]) -> Answer:
        """The second step: a code of the app, a recovery code, or what the browser's passkey call gave."""
        proof = _proof(code=data.code, recovery_code=data.recovery_code, passkey=data.passkey)
        return _answer(
            request,
            await sign_in.by_second_factor(identity_of(request), data.challenge, proof, where_of(request)),
        )

    @post("/refresh", opt={"public": True, "limit": "login", "idempotent": False}, status_code=200)
    async def refresh(self, data: JSONBody[RefreshToken], request: Request[Any, Any, Any]) -> Tokens:
        """Exchange a refresh token. One that is shown a second time ends the whole session."""
        identity = identity_of(request)
        access, refresh = await sign_in.refresh(identity, data.refresh_token, where_of(request))
        return Tokens(access, identity.tokens.seconds, refresh)

    @post(
        "/logout",
        opt={"self": True, "idempotent": False},
        status_code=204,
        # Not "cookies": the proof that this device is known outlives a session.
        response_headers={"clear-site-data": '"cache", "storage"'},
    )
    async def logout(self, request: Request[Any, Any, Any]) -> None:
        """End this session."""
        await sign_in.sign_out(identity_of(request), caller_of(request), where_of(request))
        set_cookie(request, ended_cookie())

    @post("/tenant", opt={"self": True, "idempotent": False}, status_code=200)
    async def switch_tenant(self, data: JSONBody[Business], request: Request[Any, Any, Any]) -> Renewed:
        """Go on in another business of which one is a member."""
        identity = identity_of(request)
        return _renewed(
            request,
            await sign_in.switch_tenant(identity, caller_of(request), data.tenant, where_of(request)),
        )

    @get("/step-up", opt={"self": True})
    async def step_up_options(self, request: Request[Any, Any, Any]) -> StepUpStart:
        """How one can prove that it is them, and the options for a passkey."""
        challenge, names, options = await factors.start_step_up(
            identity_of(request), caller_of(request), where_of(request)
        )
        return StepUpStart(names, challenge, options)

    @post("/step-up", opt={"self": True, "limit": "login", "idempotent": False}, status_code=200)
    async def step_up(self, data: JSONBody[StepUp], request: Request[Any, Any, Any]) -> Renewed:
        """Prove anew that it is them: for ten minutes dangerous acts are possible."""
        proof = _proof(
            code=data.code,
            recovery_code=data.recovery_code,
            passkey=data.passkey,
            password=data.password,
            challenge=data.challenge,
        )
        return _renewed(
            request,
            await sign_in.step_up(identity_of(request), caller_of(request), proof, where_of(request)),
        )

    @get("/me", opt={"self": True})
    async def me(self, request: Request[Any, Any, Any]) -> Me:
        """Who one is, and what one may do."""
        identity, caller = identity_of(request), caller_of(request)
        assert caller.account_id is not None
        assert caller.standing is not None
        async with identity.database.identity_session() as session:
            account = await accounts.by_id(session, caller.account_id)
            memberships = await accounts.memberships(session, caller.account_id)
        return Me(
            tenant_id=caller.context.tenant_id,
            actor=caller.context.actor,
            scopes=sorted(caller.context.scopes),
            email=account.email,
            name=account.name,
            blocked=caller.blocked,
            second_factor=account.has_second_factor,
            amr=list(caller.standing.amr),
            memberships=[
                Membership(one.tenant_id, one.slug, one.name, one.role, one.state)
                for one in memberships
                if one.member_state == "active"
            ],
        )

    @get("/sessions", opt={"self": True})
    async def list_sessions(self, request: Request[Any, Any, Any]) -> list[SessionOut]:
        """Where one is signed in."""
        identity, caller = identity_of(request), caller_of(request)
        assert caller.account_id is not None
        async with identity.database.identity_session() as session:
            found = await sessions.of_account(session, caller.account_id)
        return [SessionOut(**one, current=one["id"] == caller.session_id) for one in found]

    @delete("/sessions/{session_id:uuid}", opt={"self": True}, status_code=204)
    async def end_session(self, session_id: FromPath[UUID], request: Request[Any, Any, Any]) -> None:
        """Sign out there."""
        identity, caller = identity_of(request), caller_of(request)
        async with identity.database.identity_session() as session:
            if not await sessions.revoke(
                session, session_id, "ended by its owner", account_id=caller.account_id
            ):
                raise NotFound("No such session.")
            await identity.record(
                session, caller.account_id, "session.closed", where_of(request), sid=str(session_id)
            )
        identity.principals.forget(session_id)

    @delete("/sessions", opt={"self": True}, status_code=204)
    async def end_other_sessions(self, request: Request[Any, Any, Any]) -> None:
        """Sign out everywhere else."""
        identity, caller = identity_of(request), caller_of(request)
        assert caller.account_id is not None
        async with identity.database.identity_session() as session:
            ended = await sessions.revoke_all(
                session, caller.account_id, "ended by its owner", but=caller.session_id
            )
            await identity.record(
                session, caller.account_id, "session.others_closed", where_of(request), count=len(ended)
            )
        identity.principals.forget_account(caller.account_id)


def _proof(**values: Any) -> Proof:
    proof = Proof(**values)
    if proof.given != 1:
        raise ValidationFailed("Send exactly one proof.", field="code")
    return proof


def _answer(request: Request[Any, Any, Any], outcome: SignedIn | Challenge) -> Answer:
    if isinstance(outcome, Challenge):
        return Answer(
            "second_factor",
            challenge=outcome.token,
            factors=outcome.factors,
            passkey_options=outcome.passkey_options,
        )
    set_session(request, outcome.cookie)
    if outcome.device_cookie is not None:
        set_cookie(request, device_cookie(outcome.device_cookie))
    if outcome.access_token is None:
        return Answer("signed_in", tenant=outcome.tenant_slug)
    return Answer(
        "signed_in",
        tenant=outcome.tenant_slug,
        access_token=outcome.access_token,
        expires_in=identity_of(request).tokens.seconds,
        refresh_token=outcome.refresh_token,
        token_type="Bearer",  # noqa: S106  # the scheme's name
    )


def _renewed(request: Request[Any, Any, Any], made: tuple[str | None, str | None]) -> Renewed:
    cookie, access = made
    set_session(request, cookie)
    return Renewed(access, identity_of(request).tokens.seconds if access else None)
