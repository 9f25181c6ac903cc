"""The CRM over REST: contacts, leads, notes, pipelines. Thin: validate, one service call, shape the answer."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, Parameter

from storage.errors import NotFound
from storage.repositories import audit
from storage.sql import Session
from storage.tenancy import TenantContext
from tools.crm import repository, service
from tools.crm.schemas import Contact, ContactIn, Lead, LeadIn, Note, NoteIn, Pipeline

Limit = Annotated[int, Parameter(ge=1, le=200)]


class ContactController(Controller):
    path = "/api/v1/crm/contacts"
    tags = ("CRM",)

    @get(opt={"scopes": ["crm:read"]})
    async def list_contacts(
        self,
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
        limit: FromQuery[Limit] = 50,
        before: FromQuery[datetime | None] = None,
    ) -> list[Contact]:
        """Contacts, newest first. ``before`` is the ``created_at`` of the last one of the page before."""
        found = await repository.list_contacts(session, limit, before)
        await _read(session, context, "contact", [row["id"] for row in found])
        return msgspec.convert(found, list[Contact])

    @post(opt={"scopes": ["crm:write"]})
    async def create_contact(
        self,
        data: JSONBody[ContactIn],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Contact:
        """Find the contact with this e-mail or phone and fill it up, or create it."""
        contact_id = await service.find_or_create_contact(session, **msgspec.structs.asdict(data))
        await audit.record(session, context, "contact.saved", "contact", contact_id)
        return msgspec.convert(await repository.contact_by_id(session, contact_id), Contact)

    @get("/{contact_id:uuid}", opt={"scopes": ["crm:read"]})
    async def get_contact(
        self,
        contact_id: FromPath[UUID],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Contact:
        """One contact."""
        found = await repository.contact_by_id(session, contact_id)
        if found is None:
            raise NotFound("No such contact.")
        await audit.record(session, context, "contact.read", "contact", contact_id)
        return msgspec.convert(found, Contact)

    @get("/{contact_id:uuid}/notes", opt={"scopes": ["crm:read"]})
    async def list_notes(
        self,
        contact_id: FromPath[UUID],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> list[Note]:
        """Notes on a contact, newest first."""
        if await repository.contact_by_id(session, contact_id) is None:
            raise NotFound("No such contact.")
        found = await repository.list_notes(session, contact_id)
        await audit.record(session, context, "contact.notes_read", "contact", contact_id, count=len(found))
        return msgspec.convert(found, list[Note])

    @post("/{contact_id:uuid}/notes", opt={"scopes": ["crm:write"]})
    async def add_note(
        self,
        contact_id: FromPath[UUID],
        data: JSONBody[NoteIn],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Note:
        """Add a note to a contact."""
        note_id = await service.add_note(session, contact_id, context.actor, data.text)
        await audit.record(session, context, "note.added", "contact", contact_id, note=note_id)
        notes = await repository.list_notes(session, contact_id)
        return msgspec.convert(next(note for note in notes if note["id"] == note_id), Note)


class LeadController(Controller):
    path = "/api/v1/crm/leads"
    tags = ("CRM",)

    @get(opt={"scopes": ["crm:read"]})
    async def list_leads(
        self,
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
        limit: FromQuery[Limit] = 50,
        before: FromQuery[datetime | None] = None,
    ) -> list[Lead]:
        """Leads, newest first."""
        found = await repository.list_leads(session, limit, before)
        await _read(session, context, "lead", [row["id"] for row in found])
        return msgspec.convert(found, list[Lead])

    @post(opt={"scopes": ["crm:write"]})
    async def create_lead(
        self,
        data: JSONBody[LeadIn],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Lead:
        """Create a lead in the first stage of the first pipeline."""
        lead_id, _ = await service.create_lead(
            session, contact_id=data.contact_id, title=data.title, summary=data.summary
        )
        await audit.record(session, context, "lead.created", "lead", lead_id)
        return msgspec.convert((await repository.list_leads(session, 1, None, lead_id))[0], Lead)

    @get("/{lead_id:uuid}", opt={"scopes": ["crm:read"]})
    async def get_lead(
        self,
        lead_id: FromPath[UUID],
        session: NamedDependency[Session],
        context: NamedDependency[TenantContext],
    ) -> Lead:
        """One lead."""
        found = await repository.list_leads(session, 1, None, lead_id)
        if not found:
            raise NotFound("No such lead.")
        await audit.record(session, context, "lead.read", "lead", lead_id)
        return msgspec.convert(found[0], Lead)


class PipelineController(Controller):
    path = "/api/v1/crm/pipelines"
    tags = ("CRM",)

    @get(opt={"scopes": ["crm:read"]})
    async def list_pipelines(self, session: NamedDependency[Session]) -> list[Pipeline]:
        """Pipelines with their stages in order."""
        return msgspec.convert(await repository.list_pipelines(session), list[Pipeline])


async def _read(session: Session, context: TenantContext, kind: str, ids: list[UUID]) -> None:
    """One entry for a page of records; nothing was seen where there were none."""
    if ids:
        await audit.record(
            session, context, f"{kind}.listed", kind, "page", ids=[str(ident) for ident in ids]
        )
