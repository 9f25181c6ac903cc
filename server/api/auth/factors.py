"""One's second factors."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.params import FromPath, JSONBody

from server.api.auth.request import identity_of, where_of
from server.api.fields import Code, JsonObject, Name, Opaque
from server.auth import factors
from server.auth.guard import caller_of
from storage.repositories import accounts


class TotpSetup(msgspec.Struct):
    """``uri`` is what a QR code shows to the app. Both are shown this once."""

    secret: str
    uri: str


class CodeIn(msgspec.Struct, forbid_unknown_fields=True):
    code: Code


class RecoveryCodes(msgspec.Struct):
    """Each stands in for a lost device, once. They are shown this once."""

    recovery_codes: list[str]


class PasskeyStart(msgspec.Struct):
    challenge: str
    options: JsonObject


class PasskeyIn(msgspec.Struct, forbid_unknown_fields=True):
    challenge: Opaque
    credential: JsonObject
    name: Name = "Passkey"


class PasskeyOut(msgspec.Struct):
    id: UUID
    name: str
    created_at: datetime
    last_used_at: datetime | None


class PasskeyMade(msgspec.Struct):
    """``recovery_codes`` is empty where one has some already."""

    id: UUID
    recovery_codes: list[str]


class FactorController(Controller):
    path = "/api/v1/auth"
    tags = ("Second factors",)

    # Whoever found an open browser must not add a factor of their own to it, so beginning asks for a proof as removing does.
    @post("/totp", opt={"self": True, "step_up": True, "idempotent": False}, status_code=200)
    async def start_totp(self, request: Request[Any, Any, Any]) -> TotpSetup:
        """Begin to set up an app for codes."""
        made = await factors.start_totp(identity_of(request), caller_of(request))
        return TotpSetup(made.secret, made.uri)

    @post("/totp/confirm", opt={"self": True, "limit": "login", "idempotent": False}, status_code=200)
    async def confirm_totp(self, data: JSONBody[CodeIn], request: Request[Any, Any, Any]) -> RecoveryCodes:
        """Show a code of the app: from now on it is asked for."""
        return RecoveryCodes(
            await factors.confirm_totp(identity_of(request), caller_of(request), data.code, where_of(request))
        )

    @delete("/totp", opt={"self": True, "step_up": True}, status_code=204)
    async def remove_totp(self, request: Request[Any, Any, Any]) -> None:
        """Remove the app for codes."""
        await factors.remove_totp(identity_of(request), caller_of(request), where_of(request))

    @post("/recovery-codes", opt={"self": True, "step_up": True, "idempotent": False}, status_code=200)
    async def renew_recovery_codes(self, request: Request[Any, Any, Any]) -> RecoveryCodes:
        """New recovery codes; the old ones end."""
        return RecoveryCodes(
            await factors.renew_recovery_codes(identity_of(request), caller_of(request), where_of(request))
        )

    @post("/passkeys/options", opt={"self": True, "step_up": True, "idempotent": False}, status_code=200)
    async def start_passkey(self, request: Request[Any, Any, Any]) -> PasskeyStart:
        """Options for ``navigator.credentials.create``."""
        challenge, options = await factors.start_passkey(
            identity_of(request), caller_of(request), where_of(request)
        )
        return PasskeyStart(challenge, options)

    @post("/passkeys", opt={"self": True, "idempotent": False}, status_code=201)
    async def add_passkey(self, data: JSONBody[PasskeyIn], request: Request[Any, Any, Any]) -> PasskeyMade:
        """Register what the browser answered."""
        passkey_id, codes = await factors.add_passkey(
            identity_of(request),
            caller_of(request),
            data.challenge,
            data.credential,
            data.name,
            where_of(request),
        )
        return PasskeyMade(passkey_id, codes)

    @get("/passkeys", opt={"self": True})
    async def list_passkeys(self, request: Request[Any, Any, Any]) -> list[PasskeyOut]:
        """One's passkeys."""
        identity, caller = identity_of(request), caller_of(request)
        assert caller.account_id is not None
        async with identity.database.identity_session() as session:
            found = await accounts.passkeys(session, caller.account_id)
        return [PasskeyOut(one.id, one.name, one.created_at, one.last_used_at) for one in found]

    @delete("/passkeys/{passkey_id:uuid}", opt={"self": True, "step_up": True}, status_code=204)
    async def remove_passkey(self, passkey_id: FromPath[UUID], request: Request[Any, Any, Any]) -> None:
        """Remove a passkey."""
        await factors.remove_passkey(identity_of(request), caller_of(request), passkey_id, where_of(request))
