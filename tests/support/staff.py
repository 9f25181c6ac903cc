"""People of a business who are signed in over HTTP, with a second factor where their role wants one."""

from typing import Any
from uuid import UUID

from litestar import Litestar

from server.deps import Parts
from storage.permissions import SECOND_FACTOR_ROLES
from tests.server.auth.people import Device, behind, person
from tests.support.edge import header_of, someone
from tests.support.world import TestTenant


class Colleague(Device):
    """A device whose owner is signed in."""

    account_id: UUID
    email: str

    async def patch(self, path: str, body: Any = None, **headers: str) -> Any:
        return await self.ask("PATCH", path, body, **headers)

    async def delete(self, path: str, **headers: str) -> Any:
        return await self.ask("DELETE", path, **headers)


async def colleague(app: Litestar, parts: Parts, tenant: TestTenant, role: str = "owner") -> Colleague:
    """A new person with a role of the tenant's, who has signed in with a password, and with a code where the role wants one."""
    made = await person(parts, tenant, role)
    device = Colleague(app)
    device.account_id, device.email = made.account_id, made.email
    assert (await device.login(made.email)).status_code == 200
    if role in SECOND_FACTOR_ROLES:
        await device.set_up_totp()
    return device


async def long_ago(app: Litestar, parts: Parts, device: Colleague) -> None:
    """Eleven minutes have gone since this person proved that it is them."""
    await behind(
        parts,
        "update sessions set authenticated_at = clock_timestamp() - interval '11 minutes' where account_id = :id",
        id=device.account_id,
    )
    app.state.identity.principals.forget_account(device.account_id)


async def operator_inside(
    app: Litestar, parts: Parts, tenant: TestTenant, permissions: list[str]
) -> Colleague:
    """A platform operator who was allowed to act inside the tenant."""
    operator = someone(app, tenant, ("inbox:read",))
    await behind(
        parts,
        """
        with inside as (
          insert into impersonations (id, tenant_id, requested_by, reason, permissions, minutes, state, expires_at)
          values (gen_random_uuid(), :tenant, :account, 'a ticket', :permissions, 30, 'approved', clock_timestamp() + interval '30 min')
          returning id)
        update sessions set impersonation_id = inside.id from inside where sessions.id = :session
        """,
        tenant=tenant.info.id,
        account=operator.account_id,
        session=operator.session_id,
        permissions=permissions,
    )
    device = Colleague(app)
    device.account_id, device.email = operator.account_id, operator.email
    device.token = header_of(app, operator)["authorization"].removeprefix("Bearer ")
    return device
