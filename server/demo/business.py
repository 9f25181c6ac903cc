"""The demo tenant: Alpenrad, a bicycle shop in Innsbruck that does not exist."""

import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

from server.auth.passwords import Passwords, hash_password
from server.deps import Parts
from storage.repositories import accounts, directory
from storage.tenancy import TenantContext
from tools.crm import repository as crm
from tools.crm.service import DEFAULT_PIPELINE

TENANT_SLUG = "alpenrad"
STAFF_EMAIL = "staff@alpenrad.example"
STAFF_ROLE = "staff"
WIDGET = {
    "title": "Alpenrad",
    "greeting": "Grüß Gott! How can we help? Wie können wir helfen?",
    "color": "#1f6f5c",
}
DOCUMENTS = Path(__file__).parent / "documents"


async def seed(
    parts: Parts, *, origins: list[str], staff_password: str, progress: Callable[[str, int, int], None]
) -> UUID:
    """Make the demo tenant with its widget, a member of staff, a pipeline and its documents; again changes
    nothing that is there.

    Args:
        origins: pages that may use the widget; taken over at each call, since the port may have changed.
        progress: called with (file name, chunks done, chunks in all).
    """
    async with parts.database.platform_session("seed: the demo tenant does not exist yet") as session:
        await accounts.add_tenant(
            session,
            slug=TENANT_SLUG,
            name="Alpenrad",
            languages=("en", "de"),
            time_zone="Europe/Vienna",
            state="active",
        )
        tenant = await directory.tenant_by_slug(session, TENANT_SLUG)
    context = TenantContext(tenant.id, actor="job:seed")
    async with parts.database.tenant_session(context) as session:
        await directory.ensure_widget(session, WIDGET, key=f"pk_{secrets.token_urlsafe(18)}", origins=origins)
        await crm.add_pipeline(session, *DEFAULT_PIPELINE)
    async with parts.database.identity_session(tenant.id) as session:
        hashed = hash_password(staff_password)
        await accounts.add(
            session,
            email=STAFF_EMAIL,
            name="Alpenrad staff",
            password_hash=hashed,
            language="en",
            verified=True,
        )
        account = await accounts.by_email(session, STAFF_EMAIL)
        assert account is not None
        # The parent prints the password of this data folder: it is the one that works, whatever was before.
        if not await Passwords().verify(account.password_hash, staff_password):
            await accounts.set_password(session, account.id, hashed, end_proofs=True)
        await accounts.join(
            session, tenant.id, account, await accounts.role_id(session, tenant.id, STAFF_ROLE)
        )
    for path in sorted(DOCUMENTS.iterdir()):
        document_id = await parts.intake.accept(
            context, path.read_bytes(), path.name, source="demo", wake=False
        )
        await parts.intake.process(context, document_id, partial(progress, path.name))
    return tenant.id
