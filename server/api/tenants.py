"""Businesses over HTTP: the one that one works in, and opening another."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, get, patch, post
from litestar.params import JSONBody
from msgspec import Meta

from server.api.auth.request import identity_of, where_of
from server.api.changes import etag, require_match
from server.api.fields import END, Language, Line, Name
from server.auth import tenants
from server.auth.guard import caller_of
from server.auth.rights import require_fresh, require_own
from server.auth.tenants import Branding, Settings
from storage.repositories import accounts, audit
from storage.repositories import tenants as rows
from storage.repositories.tenants import TenantRecord

_Key = Annotated[str, Meta(pattern=rf"^[a-z][a-z0-9_]{{0,39}}{END}")]
_Policy = Annotated[str, Meta(min_length=1, max_length=4000)]
_Country = Annotated[str, Meta(pattern=rf"^[A-Z]{{2}}{END}", description="ISO 3166-1 alpha-2, such as AT.")]
_Days = Annotated[int, Meta(ge=1, le=36_500)]


class Tenant(msgspec.Struct):
    """A business. ``version`` is also the answer's ETag: send it as If-Match with a change."""

    id: UUID
    slug: str
    name: str
    state: str
    languages: list[str]
    time_zone: str
    cors_origins: list[str]
    settings: Settings
    version: int
    created_at: datetime


class SettingsChange(msgspec.Struct, forbid_unknown_fields=True):
    """What shall be different; what is missing or null stays. Lists and maps are replaced as a whole."""

    regions: Annotated[list[_Country], Meta(max_length=249)] | None = None
    policies: Annotated[dict[_Key, _Policy], Meta(max_length=30)] | None = None
    branding: Branding | None = None
    require_second_factor: bool | None = None
    retention: Annotated[dict[_Key, _Days], Meta(max_length=20)] | None = None


class TenantChange(msgspec.Struct, forbid_unknown_fields=True):
    """What shall be different; what is missing or null stays."""

    name: Name | None = None
    languages: Annotated[list[Language], Meta(min_length=1, max_length=10)] | None = None
    time_zone: Line | None = None
    cors_origins: Annotated[list[Annotated[str, Meta(max_length=300)]], Meta(max_length=20)] | None = None
    settings: SettingsChange | None = None


class NewTenant(msgspec.Struct, forbid_unknown_fields=True):
    """``language`` is the business's first; more are settings."""

    name: Name
    language: Language = "en"
    time_zone: Line = "UTC"


class TenantMembership(msgspec.Struct):
    """A business that one works in. Go on there: POST /api/v1/auth/tenant with its ``slug``."""

    tenant_id: UUID
    slug: str
    name: str
    state: str
    role: str
    current: bool


class TenantController(Controller):
    path = "/api/v1/tenants"
    tags = ("Business",)

    @get(opt={"self": True})
    async def list_tenants(self, request: Request[Any, Any, Any]) -> list[TenantMembership]:
        """In which businesses one works; those that are suspended too."""
        identity, caller = identity_of(request), caller_of(request)
        assert caller.account_id is not None
        async with identity.database.identity_session() as session:
            found = await accounts.memberships(session, caller.account_id)
        return [
            TenantMembership(
                tenant_id=one.tenant_id,
                slug=one.slug,
                name=one.name,
                state=one.state,
                role=one.role,
                current=one.tenant_id == caller.context.tenant_id,
            )
            for one in found
            if one.member_state == "active"
        ]

    @post(opt={"self": True})
    async def open_tenant(
        self, data: JSONBody[NewTenant], request: Request[Any, Any, Any]
    ) -> Response[Tenant]:
        """Open another business, which one owns."""
        identity = identity_of(request)
        tenant_id = await tenants.open_another(
            identity,
            caller_of(request),
            name=data.name,
            language=data.language,
            time_zone=data.time_zone,
            where=where_of(request),
        )
        async with identity.database.identity_session(tenant_id) as session:
            return _shown(await rows.get(session, tenant_id), status=201)

    @get("/current", opt={"scopes": ["tenant:read"], "versioned": True})
    async def get_tenant(self, request: Request[Any, Any, Any]) -> Response[Tenant]:
        """The business that one works in now."""
        tenant_id = caller_of(request).context.tenant_id
        async with identity_of(request).database.identity_session(tenant_id) as session:
            return _shown(await rows.get(session, tenant_id))

    @patch("/current", opt={"scopes": ["tenant:write"], "people": True, "versioned": True})
    async def change_tenant(
        self, data: JSONBody[TenantChange], request: Request[Any, Any, Any]
    ) -> Response[Tenant]:
        """Change settings; what is missing stays. With If-Match only what one has seen (412 where somebody was faster).

        Whether everybody needs a second factor changes only after a step-up.
        """
        identity, caller = identity_of(request), caller_of(request)
        tenant_id = caller.context.tenant_id
        async with identity.database.identity_session(tenant_id) as session:
            before = await rows.get(session, tenant_id)
            require_match(request, before.version)
            wanted, fields = tenants.changed(before, _given(data))
            if "settings.require_second_factor" in fields:
                require_own(caller)
                require_fresh(caller)
            if not fields:
                return _shown(before)
            after = await rows.change(session, wanted)
            await audit.record(
                session,
                caller.context,
                "tenant.changed",
                "tenant",
                tenant_id,
                fields=fields,
                version=after.version,
            )
        identity.principals.forget_tenant(tenant_id)
        return _shown(after)


def _given(change: TenantChange) -> dict[str, Any]:
    """What the request names, settings one level deep."""
    values = {name: value for name, value in msgspec.to_builtins(change).items() if value is not None}
    if "settings" in values:
        values["settings"] = {name: value for name, value in values["settings"].items() if value is not None}
    return values


def _shown(record: TenantRecord, status: int = 200) -> Response[Tenant]:
    return Response(
        Tenant(
            id=record.id,
            slug=record.slug,
            name=record.name,
            state=record.state,
            languages=list(record.languages),
            time_zone=record.time_zone,
            cors_origins=list(record.cors_origins),
            settings=tenants.settings_of(record),
            version=record.version,
            created_at=record.created_at,
        ),
        status_code=status,
        headers={"etag": etag(record.version)},
    )
