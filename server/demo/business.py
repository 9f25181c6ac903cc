"""The demo tenant: Alpenrad, a bicycle shop in Innsbruck that does not exist."""

import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

from server.auth.passwords import hash_password
from server.deps import Parts
from storage.ids import new_id
from storage.repositories import directory
from storage.repositories.directory import TenantInfo
from storage.tenancy import TenantContext
from tools.crm import repository as crm
from tools.crm.service import DEFAULT_PIPELINE

TENANT_SLUG = "alpenrad"
STAFF_EMAIL = "staff@alpenrad.example"
STAFF_SCOPES = ("inbox:read", "inbox:write", "crm:read", "crm:write", "knowledge:read", "knowledge:write")
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
        await directory.add_tenant(
            session, TenantInfo(new_id(), TENANT_SLUG, "Alpenrad", ("en", "de"), "Europe/Vienna")
        )
        tenant = await directory.tenant_by_slug(session, TENANT_SLUG)
    context = TenantContext(tenant.id, actor="job:seed")
    async with parts.database.tenant_session(context) as session:
        await directory.ensure_widget(session, WIDGET, key=f"pk_{secrets.token_urlsafe(18)}", origins=origins)
        await directory.ensure_user(
            session,
            email=STAFF_EMAIL,
            name="Alpenrad staff",
            password_hash=hash_password(staff_password),
            scopes=STAFF_SCOPES,
        )
        await crm.add_pipeline(session, *DEFAULT_PIPELINE)
    for path in sorted(DOCUMENTS.iterdir()):
        document_id = await parts.intake.accept(
            context, path.read_bytes(), path.name, source="demo", wake=False
        )
        await parts.intake.process(context, document_id, partial(progress, path.name))
    return tenant.id
