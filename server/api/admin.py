"""For the platform's operators: tenants, usage, health and what was given up, without content; acting inside a tenant only with a reason
and a second person; feature flags.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, delete, get, post, put
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, Parameter
from msgspec import Meta

from server.api.auth.request import identity_of, where_of
from server.api.fields import END, Line, Permission, Reason
from server.auth import operators
from server.auth.guard import caller_of
from storage.errors import NotFound, ValidationFailed
from storage.permissions import PERMISSIONS
from storage.repositories import audit, invariants, tenants
from storage.tenancy import Database, TenantContext, pinned

Limit = Annotated[int, Parameter(ge=1, le=200)]
_READ: dict[str, Any] = {"scopes": ["platform:read"]}
_WRITE: dict[str, Any] = {"scopes": ["platform:write"], "step_up": True}
_ACT: dict[str, Any] = {"scopes": ["platform:impersonate"], "step_up": True}
# What an operator may never do in somebody's name, whoever agrees.
NEVER = frozenset(
    {"privacy:erase", "privacy:export", "members:write", "roles:write", "keys:write", "audit:export"}
)


class TenantOverview(msgspec.Struct):
    """Sizes and states, no content."""

    id: UUID
    slug: str
    name: str
    state: str
    state_reason: str | None
    created_at: datetime
    members: int
    threads: int
    pending: int
    dead_letters: int
    last_reply_at: datetime | None


class UsageDay(msgspec.Struct):
    day: date
    kind: str
    quantity: int
    tokens_in: int
    tokens_out: int


class PlatformDeadLetter(msgspec.Struct):
    tenant_id: UUID
    id: UUID
    thread_id: UUID
    kind: str
    tries: int
    created_at: datetime


class PlatformHealth(msgspec.Struct):
    """``violations`` names what does not hold (python -m server invariants), with counts."""

    database: bool
    redis: bool
    violations: dict[str, int]
    totals: dict[str, int]


class WithReason(msgspec.Struct, forbid_unknown_fields=True):
    reason: Reason


class FlagIn(msgspec.Struct, forbid_unknown_fields=True):
    """``off_for`` goes before ``on_for``, and both before ``enabled``."""

    description: Line
    enabled: bool = False
    on_for: Annotated[list[UUID], Meta(max_length=1000)] = msgspec.field(default_factory=list)
    off_for: Annotated[list[UUID], Meta(max_length=1000)] = msgspec.field(default_factory=list)


class Flag(msgspec.Struct):
    key: str
    description: str
    enabled: bool
    on_for: list[UUID]
    off_for: list[UUID]
    updated_at: datetime


class ImpersonationIn(msgspec.Struct, forbid_unknown_fields=True):
    tenant_id: UUID
    reason: Reason
    permissions: Annotated[list[Permission], Meta(min_length=1, max_length=30)]
    minutes: Annotated[int, Meta(ge=5, le=120)] = 30


class Impersonation(msgspec.Struct):
    """``requested``, then ``approved`` or ``refused`` by somebody else, then ``ended``."""

    id: UUID
    tenant_id: UUID
    requested_by: UUID
    reason: str
    permissions: list[str]
    minutes: int
    state: str
    decided_by: UUID | None
    decided_at: datetime | None
    expires_at: datetime | None
    created_at: datetime


class Decision(msgspec.Struct, forbid_unknown_fields=True):
    approve: bool


class ImpersonationToken(msgspec.Struct):
    access_token: str
    expires_in: int
    token_type: str = "Bearer"  # noqa: S105  # the scheme's name


FlagKey = Annotated[str, Parameter(pattern=rf"^[a-z][a-z0-9_.-]{{0,59}}{END}")]


class AdminController(Controller):
    path = "/api/v1/admin"
    tags = ("Platform",)

    @get("/tenants", opt=_READ)
    async def list_tenants(
        self,
        request: Request[Any, Any, State],
        after: FromQuery[UUID | None] = None,
        limit: FromQuery[Limit] = 50,
    ) -> list[TenantOverview]:
        """Businesses with their sizes, by id. ``after`` is the last id of the page before."""
        database: Database = request.app.state.database
        async with database.platform_session("admin: overview of tenants") as session:
            return msgspec.convert(
                await tenants.overview(session, limit=limit, after=after), list[TenantOverview]
            )

    @get("/tenants/{tenant_id:uuid}", opt=_READ)
    async def get_tenant(
        self, tenant_id: FromPath[UUID], request: Request[Any, Any, State]
    ) -> TenantOverview:
        """One business with its sizes."""
        database: Database = request.app.state.database
        async with database.platform_session("admin: overview of a tenant") as session:
            found = await tenants.overview(session, limit=1, after=None, tenant_id=tenant_id)
        if not found:
            raise NotFound("No such business.")
        return msgspec.convert(found[0], TenantOverview)

    @get("/tenants/{tenant_id:uuid}/usage", opt=_READ)
    async def usage(
        self,
        tenant_id: FromPath[UUID],
        request: Request[Any, Any, State],
        since: FromQuery[date | None] = None,
        until: FromQuery[date | None] = None,
    ) -> list[UsageDay]:
        """Replies and tokens a day, of the last 30 days where no time is given; ``until`` is not included."""
        end = datetime.combine(
            until or datetime.now(UTC).date() + timedelta(days=1), datetime.min.time(), UTC
        )
        begin = datetime.combine(since, datetime.min.time(), UTC) if since else end - timedelta(days=31)
        database: Database = request.app.state.database
        async with database.platform_session("admin: usage of a tenant") as session:
            if not await tenants.overview(session, limit=1, after=None, tenant_id=tenant_id):
                raise NotFound("No such business.")
            return msgspec.convert(await tenants.usage(session, tenant_id, begin, end), list[UsageDay])

    @post("/tenants/{tenant_id:uuid}/suspend", opt=_WRITE, status_code=204)
    async def suspend(
        self,
        tenant_id: FromPath[UUID],
        data: JSONBody[WithReason],
        request: Request[Any, Any, State],
        context: NamedDependency[TenantContext],
    ) -> None:
        """Close all doors of a business: staff, keys, widget. Its data stays, and open messages wait."""
        await self._set_state(request, context, tenant_id, "suspended", data.reason)

    @post("/tenants/{tenant_id:uuid}/resume", opt=_WRITE, status_code=204)
    async def resume(
        self,
        tenant_id: FromPath[UUID],
        data: JSONBody[WithReason],
        request: Request[Any, Any, State],
        context: NamedDependency[TenantContext],
    ) -> None:
        """Open them again."""
        await self._set_state(request, context, tenant_id, "active", data.reason)

    @staticmethod
    async def _set_state(
        request: Request[Any, Any, State], context: TenantContext, tenant_id: UUID, state: str, reason: str
    ) -> None:
        identity = identity_of(request)
        async with identity.database.identity_session() as session:
            await tenants.set_state(session, tenant_id, state, reason if state == "suspended" else None)
            for where in (context.tenant_id, tenant_id):  # the operators' log, and the business's own
                async with pinned(session, where):
                    await audit.record(
                        session, context, f"tenant.{state}", "tenant", tenant_id, reason=reason
                    )
        identity.principals.forget_tenant(tenant_id)

    @get("/dead-letters", opt=_READ)
    async def dead_letters(
        self, request: Request[Any, Any, State], limit: FromQuery[Limit] = 100
    ) -> list[PlatformDeadLetter]:
        """What was given up anywhere: ids and times."""
        database: Database = request.app.state.database
        async with database.platform_session("admin: what was given up") as session:
            return msgspec.convert(await tenants.dead_letters(session, limit), list[PlatformDeadLetter])

    @get("/health", opt=_READ)
    async def health(self, request: Request[Any, Any, State]) -> PlatformHealth:
        """The servers behind us, and what must hold on the data."""
        database: Database = request.app.state.database
        async with database.platform_session("admin: invariants") as session:
            found = await invariants.violations(session)
            totals = await invariants.totals(session)
        try:
            await request.app.state.parts.bus.ping()
            redis = True
        except Exception:  # whatever it says: it does not answer
            redis = False
        return PlatformHealth(True, redis, {name: len(rows) for name, rows in found.items() if rows}, totals)

    @get("/feature-flags", opt=_READ)
    async def list_flags(self, request: Request[Any, Any, State]) -> list[Flag]:
        """All switches."""
        async with identity_of(request).database.identity_session() as session:
            return msgspec.convert(await tenants.flags(session), list[Flag])

    @put("/feature-flags/{key:str}", opt=_WRITE, status_code=204)
    async def set_flag(
        self,
        key: FromPath[FlagKey],
        data: JSONBody[FlagIn],
        request: Request[Any, Any, State],
        context: NamedDependency[TenantContext],
    ) -> None:
        """Make or change a switch: small letters, digits, points, hyphens."""
        async with identity_of(request).database.identity_session() as session:
            await tenants.set_flag(
                session, key, data.description, enabled=data.enabled, on_for=data.on_for, off_for=data.off_for
            )
            await audit.record(
                session, context, "feature_flag.set", "feature_flag", key, enabled=data.enabled
            )


class ImpersonationController(Controller):
    path = "/api/v1/admin/impersonations"
    tags = ("Platform",)

    @get(opt=_READ)
    async def list_impersonations(
        self, request: Request[Any, Any, State], limit: FromQuery[Limit] = 50
    ) -> list[Impersonation]:
        """Requests to act inside a tenant, newest first."""
        async with identity_of(request).database.identity_session() as session:
            return msgspec.convert(await tenants.impersonations(session, limit), list[Impersonation])

    @post(opt=_ACT)
    async def request_impersonation(
        self, data: JSONBody[ImpersonationIn], request: Request[Any, Any, State]
    ) -> Impersonation:
        """Ask to act inside a tenant with some permissions, for some minutes. A second operator has to agree."""
        unknown = set(data.permissions) - (set(PERMISSIONS) - NEVER)
        if unknown:
            raise ValidationFailed(
                "An operator cannot be given these permissions.", field="permissions", refused=sorted(unknown)
            )
        made = await operators.request(
            identity_of(request),
            caller_of(request),
            tenant_id=data.tenant_id,
            reason=data.reason,
            permissions=data.permissions,
            minutes=data.minutes,
            where=where_of(request),
        )
        return msgspec.convert(made, Impersonation)

    @post("/{impersonation_id:uuid}/decision", opt=_ACT, status_code=200)
    async def decide(
        self, impersonation_id: FromPath[UUID], data: JSONBody[Decision], request: Request[Any, Any, State]
    ) -> Impersonation:
        """Agree or refuse; never one's own request."""
        made = await operators.decide(
            identity_of(request), caller_of(request), impersonation_id, data.approve, where_of(request)
        )
        return msgspec.convert(made, Impersonation)

    @post(
        "/{impersonation_id:uuid}/session",
        opt={**_ACT, "idempotent": False},
        status_code=200,
    )
    async def begin(
        self, impersonation_id: FromPath[UUID], request: Request[Any, Any, State]
    ) -> ImpersonationToken:
        """A token for the tenant; all that is done with it is in the tenant's audit log, with the reason."""
        identity = identity_of(request)
        token = await operators.begin(identity, caller_of(request), impersonation_id, where_of(request))
        return ImpersonationToken(token, identity.tokens.seconds)

    @delete("/{impersonation_id:uuid}", opt={"scopes": ["platform:impersonate"]}, status_code=204)
    async def end(self, impersonation_id: FromPath[UUID], request: Request[Any, Any, State]) -> None:
        """End it before its time."""
        await operators.end(identity_of(request), caller_of(request), impersonation_id, where_of(request))
