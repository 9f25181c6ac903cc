"""Single sign-on: a business's connections, signing in by one, linking oneself with one."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.response import Redirect
from msgspec import Meta

from server.api.auth.request import identity_of, set_cookie, set_session, where_of
from server.api.auth.sign_in import Answer
from server.api.changes import transaction
from server.api.fields import Line
from server.auth import sso
from server.auth.guard import caller_of
from server.auth.rights import require_own
from server.auth.sign_in import Challenge, SignedIn
from storage.errors import Conflict
from storage.repositories import audit
from storage.repositories import sso as rows
from storage.sql import Session
from storage.tenancy import TenantContext

STATE_COOKIE = "__Host-sso"
MAX_CONNECTIONS = 10
_ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Lax"
_CHANGE = {"scopes": ["tenant:write"], "step_up": True}
_PAGE = "/account"
Secret = Annotated[str, Meta(min_length=1, max_length=1024)]


class ConnectionOut(msgspec.Struct):
    """A provider. Its secret is never shown. Register ``redirect_uri`` there."""

    id: UUID
    issuer: str
    client_id: str
    enabled: bool
    created_at: datetime
    redirect_uri: str


class NewConnection(msgspec.Struct, forbid_unknown_fields=True):
    """``issuer`` exactly as in the provider's tokens: an https address."""

    issuer: Line
    client_id: Line
    client_secret: Secret


class ConnectionChange(msgspec.Struct, forbid_unknown_fields=True):
    """Another issuer is another connection: its people are others."""

    client_id: Line | None = None
    client_secret: Secret | None = None
    enabled: bool | None = None


class LinkStart(msgspec.Struct, forbid_unknown_fields=True):
    """Which connection, where the business has several."""

    connection_id: UUID | None = None


class Elsewhere(msgspec.Struct):
    """Send the browser there."""

    url: str


class LinkedOut(msgspec.Struct):
    status: Literal["linked"] = "linked"


class IdentityOut(msgspec.Struct):
    """Who one is at a provider; business and issuer are null where that connection is gone."""

    id: UUID
    tenant: str | None
    issuer: str | None
    created_at: datetime


class ConnectionController(Controller):
    path = "/api/v1/tenants/current/sso"
    tags = ("Single sign-on",)

    @get(opt={"scopes": ["tenant:read"]})
    async def list_connections(
        self, request: Request[Any, Any, Any], session: NamedDependency[Session]
    ) -> list[ConnectionOut]:
        """The business's providers (there are at most ten)."""
        return [_shown(request, row) for row in await rows.list_connections(session)]

    @post(opt=_CHANGE)
    async def add_connection(
        self,
        data: JSONBody[NewConnection],
        request: Request[Any, Any, Any],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> ConnectionOut:
        """Connect a provider. Then each person links themselves: POST /api/v1/auth/sso/link."""
        require_own(caller_of(request))
        issuer = sso.check_issuer(data.issuer)
        if len(await rows.list_connections(session)) >= MAX_CONNECTIONS:
            raise Conflict(f"{MAX_CONNECTIONS} connections are possible. Remove one first.")
        connection_id = await rows.add_connection(session, issuer, data.client_id, data.client_secret)
        await audit.record(
            session, context, "sso_connection.created", "sso_connection", connection_id, issuer=issuer
        )
        return _shown(request, await rows.connection(session, connection_id))

    @patch("/{connection_id:uuid}", opt=_CHANGE)
    async def change_connection(
        self,
        connection_id: FromPath[UUID],
        data: JSONBody[ConnectionChange],
        request: Request[Any, Any, Any],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> ConnectionOut:
        """Change client or secret, or close the connection for a while. Who is signed in already stays so."""
        require_own(caller_of(request))
        await rows.connection(session, connection_id)
        await rows.set_connection(
            session,
            connection_id,
            client_id=data.client_id,
            client_secret=data.client_secret,
            enabled=data.enabled,
        )
        after = await rows.connection(session, connection_id)
        await audit.record(
            session,
            context,
            "sso_connection.changed",
            "sso_connection",
            connection_id,
            fields=[name for name, value in msgspec.structs.asdict(data).items() if value is not None],
            enabled=after["enabled"],
        )
        return _shown(request, after)

    @delete("/{connection_id:uuid}", opt=_CHANGE)
    async def remove_connection(
        self,
        connection_id: FromPath[UUID],
        request: Request[Any, Any, Any],
        context: NamedDependency[TenantContext],
    ) -> None:
        """Remove a connection and everybody's link with it."""
        require_own(caller_of(request))
        async with transaction(request, context) as session:
            await rows.connection(session, connection_id)
            # Two roles, two transactions; the links first: where the rest fails, the same request ends both.
            async with identity_of(request).database.identity_session(context.tenant_id) as linked:
                count = await rows.unlink_all(linked, connection_id)
            await rows.remove_connection(session, connection_id)
            await audit.record(
                session, context, "sso_connection.removed", "sso_connection", connection_id, links=count
            )


class SsoController(Controller):
    path = "/api/v1/auth/sso"
    tags = ("Single sign-on",)

    @get("/callback", opt={"public": True, "limit": "login"}, status_code=200)
    async def callback(self, request: Request[Any, Any, Any]) -> Response[Any]:
        """Where the provider sends the browser back to. Pages are sent on to /account, programs get the answer as JSON."""
        outcome = await sso.finish(
            identity_of(request),
            {name: str(value) for name, value in request.query_params.items()},
            request.cookies.get(STATE_COOKIE),
            where_of(request),
        )
        set_cookie(request, f"{STATE_COOKIE}=; Max-Age=0; {_ATTRIBUTES}")
        page = "text/html" in request.headers.get("accept", "")
        if isinstance(outcome, Challenge):
            if page:
                return Redirect(f"{_PAGE}#second_factor={outcome.token}", status_code=302)
            return Response(
                Answer(
                    "second_factor",
                    challenge=outcome.token,
                    factors=outcome.factors,
                    passkey_options=outcome.passkey_options,
                )
            )
        if isinstance(outcome, SignedIn):
            # No device cookie: it stands for the account's own password having been right.
            set_session(request, outcome.cookie)
            if not page:
                return Response(Answer("signed_in", tenant=outcome.tenant_slug))
        return Redirect(_PAGE, status_code=302) if page else Response(LinkedOut())

    @get("/{tenant:str}", opt={"public": True, "limit": "login"}, status_code=302)
    async def start(
        self,
        tenant: FromPath[str],
        request: Request[Any, Any, Any],
        connection: FromQuery[UUID | None] = None,
    ) -> Redirect:
        """Sign in with the provider of a business, by the business's short name. For browsers: the answer sends them there."""
        begun = await sso.begin(identity_of(request), tenant, connection, where_of(request))
        _remember(request, begun)
        return Redirect(begun.url, status_code=302)

    @post(
        "/link", opt={"self": True, "step_up": True, "limit": "login", "idempotent": False}, status_code=200
    )
    async def start_link(self, data: JSONBody[LinkStart], request: Request[Any, Any, Any]) -> Elsewhere:
        """Begin to link oneself with the provider of the business one works in now. The browser goes to ``url``."""
        begun = await sso.begin_link(
            identity_of(request), caller_of(request), data.connection_id, where_of(request)
        )
        _remember(request, begun)
        return Elsewhere(begun.url)

    @get("/identities", opt={"self": True})
    async def list_identities(self, request: Request[Any, Any, Any]) -> list[IdentityOut]:
        """With which providers one is linked."""
        identity, caller = identity_of(request), caller_of(request)
        assert caller.account_id is not None
        async with identity.database.identity_session() as session:
            found = await rows.identities(session, caller.account_id)
        return [IdentityOut(one.id, one.tenant_slug, one.issuer, one.created_at) for one in found]

    @delete("/identities/{identity_id:uuid}", opt={"self": True, "step_up": True})
    async def unlink(self, identity_id: FromPath[UUID], request: Request[Any, Any, Any]) -> None:
        """Take a link away: that provider's person does not get in any more."""
        await sso.unlink(identity_of(request), caller_of(request), identity_id, where_of(request))


def _remember(request: Request[Any, Any, Any], begun: sso.Begun) -> None:
    """Lax, so that the provider's page may send the browser back with it."""
    age = int(sso.STATE_LIFE.total_seconds())
    set_cookie(request, f"{STATE_COOKIE}={begun.cookie}; Max-Age={age}; {_ATTRIBUTES}")


def _shown(request: Request[Any, Any, Any], row: dict[str, Any]) -> ConnectionOut:
    return ConnectionOut(**row, redirect_uri=where_of(request).base_url + sso.CALLBACK)
