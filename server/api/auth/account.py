"""One's own account: opening it, verifying the address, passwords, accepting invitations."""

from typing import Any
from zoneinfo import available_timezones

import msgspec
from litestar import Controller, Request, patch, post
from litestar.params import JSONBody

from server.api.auth.request import identity_of, where_of
from server.api.fields import Email, Language, Line, Name, Opaque, Password
from server.auth import accounts
from server.auth.guard import caller_of
from storage.errors import ValidationFailed
from storage.repositories import accounts as rows


class SignUp(msgspec.Struct, forbid_unknown_fields=True):
    email: Email
    password: Password
    name: Name
    business: Name
    language: Language = "en"
    time_zone: Line = "UTC"


class Token(msgspec.Struct, forbid_unknown_fields=True):
    token: Opaque


class EmailOnly(msgspec.Struct, forbid_unknown_fields=True):
    email: Email


class NewPassword(msgspec.Struct, forbid_unknown_fields=True):
    token: Opaque
    password: Password


class ChangedPassword(msgspec.Struct, forbid_unknown_fields=True):
    current: Password
    new: Password


class Invited(msgspec.Struct, forbid_unknown_fields=True):
    """Name and password are wanted where the invited address has no account yet."""

    token: Opaque
    name: Name | None = None
    password: Password | None = None
    language: Language = "en"


class Profile(msgspec.Struct, forbid_unknown_fields=True):
    name: Name | None = None
    language: Language | None = None


class Sent(msgspec.Struct):
    """The same for everybody: what there is to be done stands in the mail."""

    message: str = "If the address is right, there is a mail on its way."


class Joined(msgspec.Struct):
    tenant: str


_OPEN = {"public": True, "limit": "login", "idempotent": False}


class AccountController(Controller):
    path = "/api/v1/auth"
    tags = ("Account",)
    response_headers = {"cache-control": "no-store"}  # noqa: RUF012  # Litestar reads this plain class attribute

    @post("/sign-up", opt=_OPEN, status_code=202)
    async def sign_up(self, data: JSONBody[SignUp], request: Request[Any, Any, Any]) -> Sent:
        """Open an account and a business. Both wait until the link in the mail was used."""
        if data.time_zone not in available_timezones():
            raise ValidationFailed(
                "This time zone is not known. Use a name like Europe/Vienna.", field="time_zone"
            )
        await accounts.sign_up(
            identity_of(request),
            email=data.email,
            password=data.password,
            name=data.name,
            business=data.business,
            language=data.language,
            time_zone=data.time_zone,
            where=where_of(request),
        )
        return Sent()

    @post("/verify-email", opt=_OPEN, status_code=204)
    async def verify_email(self, data: JSONBody[Token], request: Request[Any, Any, Any]) -> None:
        """The token of the mail's link: the address is yours."""
        await accounts.verify_email(identity_of(request), data.token, where_of(request))

    @post("/password/forgotten", opt=_OPEN, status_code=202)
    async def forgotten(self, data: JSONBody[EmailOnly], request: Request[Any, Any, Any]) -> Sent:
        """Ask for a link by mail, also for another one to verify the address."""
        await accounts.request_link(identity_of(request), data.email, where_of(request))
        return Sent()

    @post("/password/reset", opt=_OPEN, status_code=204)
    async def reset(self, data: JSONBody[NewPassword], request: Request[Any, Any, Any]) -> None:
        """Set a new password by the token of the mail's link. All sessions end; a second factor stays."""
        await accounts.reset_password(identity_of(request), data.token, data.password, where_of(request))

    @post("/password", opt={"self": True, "limit": "login", "idempotent": False}, status_code=204)
    async def change(self, data: JSONBody[ChangedPassword], request: Request[Any, Any, Any]) -> None:
        """Change one's password. All other sessions end."""
        await accounts.change_password(
            identity_of(request), caller_of(request), data.current, data.new, where_of(request)
        )

    @post("/invitations/accept", opt=_OPEN, status_code=200)
    async def accept(self, data: JSONBody[Invited], request: Request[Any, Any, Any]) -> Joined:
        """Become a member by the token of an invitation's link."""
        return Joined(
            await accounts.accept_invitation(
                identity_of(request), data.token, data.name, data.password, data.language, where_of(request)
            )
        )

    @patch("/profile", opt={"self": True}, status_code=204)
    async def change_profile(self, data: JSONBody[Profile], request: Request[Any, Any, Any]) -> None:
        """Change one's name or language."""
        identity, caller = identity_of(request), caller_of(request)
        assert caller.account_id is not None
        async with identity.database.identity_session() as session:
            await rows.set_profile(session, caller.account_id, data.name, data.language)
            await identity.record(session, caller.account_id, "account.changed", where_of(request))
