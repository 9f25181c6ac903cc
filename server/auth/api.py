"""Signing in. Bare on purpose: sessions, second factors and roles are the identity issue's."""

import msgspec
from litestar import Controller, Request, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import JSONBody

from server.auth.passwords import Passwords
from server.auth.tokens import Tokens
from storage.errors import Unauthenticated
from storage.repositories import directory
from storage.tenancy import Database, TenantContext


class Credentials(msgspec.Struct, forbid_unknown_fields=True):
    """``tenant`` is the business's short name."""

    tenant: str
    email: str
    password: str


class Token(msgspec.Struct):
    """Send it as ``Authorization: Bearer <access_token>``; it lasts ``expires_in`` seconds."""

    access_token: str
    expires_in: int
    token_type: str = "Bearer"  # noqa: S105  # the scheme's name


class Me(msgspec.Struct):
    tenant_id: str
    actor: str
    scopes: list[str]


class AuthController(Controller):
    path = "/api/v1/auth"
    tags = ("Auth",)

    @post("/login", opt={"public": True}, status_code=200)
    async def login(self, data: JSONBody[Credentials], request: Request[None, None, State]) -> Token:
        """Exchange e-mail and password for an access token. The answer is the same for a wrong password and
        an unknown user.
        """
        database: Database = request.app.state.database
        tokens: Tokens = request.app.state.tokens
        passwords: Passwords = request.app.state.passwords
        async with database.platform_session(
            "login: the tenant is known only after the user is found"
        ) as session:
            found = await directory.login(session, data.tenant, data.email)
        if not await passwords.verify(found.password_hash if found else None, data.password) or found is None:
            raise Unauthenticated("E-mail or password is wrong.")
        return Token(tokens.issue(found.tenant_id, found.user_id, found.scopes), tokens.seconds)

    @get("/me", opt={"scopes": ["inbox:read"]})
    async def me(self, context: NamedDependency[TenantContext]) -> Me:
        """Whom the token speaks for."""
        return Me(str(context.tenant_id), context.actor, sorted(context.scopes))
