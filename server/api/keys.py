"""Service accounts and their API keys. Keys are shown once: their answers are not kept for an Idempotency-Key either, so a request
that is repeated makes a second key (or, for a rotation, is refused).
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from server.api.auth.request import identity_of
from server.api.changes import transaction
from server.api.fields import Name, Permission
from server.auth import rights
from server.auth.api_keys import MAX_NETWORKS, parse_networks
from server.auth.guard import caller_of
from storage.errors import Conflict, NotFound, ValidationFailed
from storage.repositories import audit
from storage.repositories import members as rows
from storage.sql import Session
from storage.tenancy import TenantContext

Scopes = Annotated[list[Permission], Meta(min_length=1, max_length=60)]
LifeDays = Annotated[int, Meta(ge=1, le=365)]
Network = Annotated[str, Meta(min_length=2, max_length=50)]
MAX_ACCOUNTS, MAX_KEYS = 100, 20
_CHANGE = {"scopes": ["keys:write"], "step_up": True}
_SHOWN_ONCE = {**_CHANGE, "idempotent": False}


class ServiceAccount(msgspec.Struct):
    """A program that acts for the business."""

    id: UUID
    name: str
    scopes: list[str]
    created_at: datetime
    disabled_at: datetime | None


class NewServiceAccount(msgspec.Struct, forbid_unknown_fields=True):
    name: Name
    scopes: Scopes


class Key(msgspec.Struct):
    """A key as lists and logs show it: by its prefix. ``last_used_at`` is exact to a minute."""

    id: UUID
    name: str
    prefix: str
    scopes: list[str]
    allowed_networks: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    replaces: UUID | None
    revoked_at: datetime | None


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """``scopes`` are some of the account's. ``allowed_networks`` (CIDR): from elsewhere the key does not work; none: from anywhere."""

    name: Name
    scopes: Scopes
    expires_in_days: LifeDays = 90
    allowed_networks: Annotated[list[Network], Meta(max_length=MAX_NETWORKS)] = []


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """For so many seconds the old key goes on working beside the new one; 0 ends it now."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=604_800)]
    expires_in_days: LifeDays = 90


class ShownKey(msgspec.Struct):
    """``secret`` is the key itself. This is the only time that it can be seen."""

    key: Key
    secret: str


class ServiceAccountController(Controller):
    path = "/api/v1/service-accounts"
    tags = ("API keys",)

    @get(opt={"scopes": ["keys:read"]})
    async def list_accounts(self, session: NamedDependency[Session]) -> list[ServiceAccount]:
        """All service accounts (there are at most 100)."""
        return msgspec.convert(await rows.list_service_accounts(session), list[ServiceAccount])

    @get("/{account_id:uuid}", opt={"scopes": ["keys:read"]})
    async def get_account(
        self, account_id: FromPath[UUID], session: NamedDependency[Session]
    ) -> ServiceAccount:
        """One service account."""
        return msgspec.convert(await rows.service_account(session, account_id), ServiceAccount)

    @post(opt=_CHANGE)
    async def create_account(
        self,
        data: JSONBody[NewServiceAccount],
        request: Request[Any, Any, Any],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> ServiceAccount:
        """Make an account for a program. It may do no more than oneself, and never what is for people."""
        caller = caller_of(request)
        rights.require_own(caller)
        scopes = rights.program_scopes(data.scopes)
        rights.require_held(caller, scopes)
        there = await rows.list_service_accounts(session)
        if len(there) >= MAX_ACCOUNTS:
            raise Conflict(f"{MAX_ACCOUNTS} service accounts are possible.")
        account_id = await rows.add_service_account(session, data.name.strip(), scopes)
        await audit.record(
            session, context, "service_account.created", "service_account", account_id, scopes=scopes
        )
        return msgspec.convert(await rows.service_account(session, account_id), ServiceAccount)

    @delete("/{account_id:uuid}", opt=_CHANGE)
    async def disable_account(
        self,
        account_id: FromPath[UUID],
        request: Request[Any, Any, Any],
        context: NamedDependency[TenantContext],
    ) -> None:
        """End the account and all its keys. It stays in the list, so that its acts in the audit log have a name."""
        rights.require_own(caller_of(request))
        async with transaction(request, context) as session:
            await rows.disable_service_account(session, account_id)
            prefixes = [key["prefix"] for key in await rows.list_keys(session, account_id)]
            await audit.record(
                session,
                context,
                "service_account.disabled",
                "service_account",
                account_id,
                keys=len(prefixes),
            )
        identity_of(request).principals.forget(*prefixes)

    @get("/{account_id:uuid}/keys", opt={"scopes": ["keys:read"]})
    async def list_keys(self, account_id: FromPath[UUID], session: NamedDependency[Session]) -> list[Key]:
        """An account's newest 200 keys, those that have ended too."""
        await rows.service_account(session, account_id)
        return msgspec.convert(await rows.list_keys(session, account_id, limit=200), list[Key])

    @post("/{account_id:uuid}/keys", opt=_SHOWN_ONCE)
    async def create_key(
        self,
        account_id: FromPath[UUID],
        data: JSONBody[NewKey],
        request: Request[Any, Any, Any],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> ShownKey:
        """Make a key. Whoever makes it sees it, so it may do no more than they."""
        account = await _usable(session, account_id)
        scopes = rights.program_scopes(data.scopes)
        if more := sorted(set(scopes) - set(account["scopes"])):
            raise ValidationFailed("The service account itself may not do this.", field="scopes", more=more)
        networks = parse_networks(data.allowed_networks)
        living = [key for key in await rows.list_keys(session, account_id) if _lives(key)]
        if len(living) >= MAX_KEYS:
            raise Conflict(f"{MAX_KEYS} keys of an account can be in use. Revoke one first.")
        made = await _add(
            request,
            session,
            account_id,
            name=data.name.strip(),
            scopes=scopes,
            networks=networks,
            days=data.expires_in_days,
            replaces=None,
        )
        await audit.record(
            session,
            context,
            "api_key.created",
            "api_key",
            made.key.id,
            prefix=made.key.prefix,
            service_account=account_id,
            scopes=scopes,
        )
        return made

    @post("/{account_id:uuid}/keys/{key_id:uuid}/rotate", opt=_SHOWN_ONCE)
    async def rotate_key(
        self,
        account_id: FromPath[UUID],
        key_id: FromPath[UUID],
        data: JSONBody[Rotation],
        request: Request[Any, Any, Any],
        context: NamedDependency[TenantContext],
    ) -> ShownKey:
        """Make a key that takes another's place: same name, scopes and networks. The old one ends after the overlap."""
        async with transaction(request, context) as session:
            account = await _usable(session, account_id)
            old = await _key(session, account_id, key_id)
            if not _lives(old):
                raise Conflict("This key has ended. Make a new one.")
            if any(key["replaces"] == key_id for key in await rows.list_keys(session, account_id)):
                raise Conflict("Another key has taken this one's place already.")
            made = await _add(
                request,
                session,
                account_id,
                name=old["name"],
                scopes=[scope for scope in old["scopes"] if scope in account["scopes"]],
                networks=old["allowed_networks"],
                days=data.expires_in_days,
                replaces=key_id,
            )
            await rows.end_key(session, key_id, in_seconds=data.overlap_seconds)
            await audit.record(
                session,
                context,
                "api_key.rotated",
                "api_key",
                key_id,
                prefix=old["prefix"],
                new_key=made.key.id,
                overlap_seconds=data.overlap_seconds,
            )
        identity_of(request).principals.forget(old["prefix"])
        return made

    @delete("/{account_id:uuid}/keys/{key_id:uuid}", opt=_CHANGE)
    async def revoke_key(
        self,
        account_id: FromPath[UUID],
        key_id: FromPath[UUID],
        request: Request[Any, Any, Any],
        context: NamedDependency[TenantContext],
    ) -> None:
        """End a key now. Everybody with this right may, whatever the key can do: it may have leaked."""
        rights.require_own(caller_of(request))
        async with transaction(request, context) as session:
            old = await _key(session, account_id, key_id)
            await rows.end_key(session, key_id)
            await audit.record(session, context, "api_key.revoked", "api_key", key_id, prefix=old["prefix"])
        identity_of(request).principals.forget(old["prefix"])


async def _usable(session: Session, account_id: UUID) -> dict[str, Any]:
    """The account, locked: the number of its keys must not change meanwhile."""
    account = await rows.service_account(session, account_id, lock=True)
    if account["disabled_at"] is not None:
        raise Conflict("This service account was ended. Make a new one.")
    return account


async def _key(session: Session, account_id: UUID, key_id: UUID) -> dict[str, Any]:
    found = await rows.key(session, key_id)
    if found["service_account_id"] != account_id:
        raise NotFound("No such key.")
    return found


def _lives(key: dict[str, Any]) -> bool:
    return key["revoked_at"] is None and (key["expires_at"] is None or key["expires_at"] > datetime.now(UTC))


async def _add(
    request: Request[Any, Any, Any],
    session: Session,
    account_id: UUID,
    *,
    name: str,
    scopes: list[str],
    networks: list[str],
    days: int,
    replaces: UUID | None,
) -> ShownKey:
    caller = caller_of(request)
    rights.require_own(caller)
    rights.require_held(caller, scopes)
    fresh = identity_of(request).keys.new()
    key_id = await rows.add_key(
        session,
        account_id,
        name=name,
        prefix=fresh.prefix,
        key_hash=fresh.digest,
        scopes=scopes,
        allowed_networks=networks,
        expires_at=datetime.now(UTC) + timedelta(days=days),
        replaces=replaces,
    )
    return ShownKey(msgspec.convert(await rows.key(session, key_id), Key), fresh.clear)
