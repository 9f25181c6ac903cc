"""Every SQL statement of the CRM. Row-level security limits each to the session's tenant; what identifies a person is sealed
under that person's key, and found by blind indexes.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from storage.crypto.cipher import Subject
from storage.ids import new_id
from storage.sql import Session, text

_CONTACT = "id, name, email, phone, company, language, legal_hold, erased_at, created_at"
_SEALED = ("name", "email", "phone", "company")


async def _opened(
    session: Session, table: str, columns: Sequence[str], rows: Sequence[Any]
) -> list[dict[str, Any]]:
    """Rows with their sealed columns in clear; None where the person was erased."""
    opened = [dict(row._mapping) for row in rows]
    for column in columns:
        blobs = [(row["id"], row[column]) for row in opened]
        for row, value in zip(
            opened, await session.cipher.open_many(f"{table}.{column}", blobs), strict=True
        ):
            row[column] = value
    return opened


async def _sealed(session: Session, contact_id: UUID, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a contact as they are stored, with the blind indexes of e-mail and phone."""
    cipher, subject = session.cipher, Subject.contact(contact_id)
    values: dict[str, Any] = {}
    for column in _SEALED:
        value = fields.get(column)
        values[column] = (
            None if value is None else await cipher.seal(f"contacts.{column}", contact_id, subject, value)
        )
    return values | await _reach(session, fields.get("email"), fields.get("phone"))


async def _reach(session: Session, email: str | None, phone: str | None) -> dict[str, bytes | None]:
    return {
        "email_bi": await session.cipher.blind("EMAIL", email) if email else None,
        "phone_bi": await session.cipher.blind("PHONE", phone) if phone else None,
    }


async def contact_by_id(session: Session, contact_id: UUID) -> dict[str, Any] | None:
    row = (
        await session.execute(text(f"select {_CONTACT} from contacts where id = :id"), {"id": contact_id})
    ).one_or_none()
    return None if row is None else (await _opened(session, "contacts", _SEALED, [row]))[0]


async def contact_by_reach(session: Session, email: str | None, phone: str | None) -> dict[str, Any] | None:
    """The contact with this e-mail, else the one with this phone number. Locked: two turns must not fill it
    in at once.
    """
    row = (
        await session.execute(
            text(f"""
            select {_CONTACT} from contacts where email_bi = :email_bi or phone_bi = :phone_bi
             order by (email_bi = :email_bi) desc nulls last limit 1 for update
            """),
            await _reach(session, email, phone),
        )
    ).one_or_none()
    return None if row is None else (await _opened(session, "contacts", _SEALED, [row]))[0]


async def add_contact(session: Session, fields: dict[str, Any]) -> UUID | None:
    """The new id; None where e-mail or phone is taken (a concurrent turn was faster)."""
    contact_id = new_id()
    created: UUID | None = await session.scalar(
        text("""
        insert into contacts (id, name, email, phone, company, email_bi, phone_bi, language)
        values (:id, :name, :email, :phone, :company, :email_bi, :phone_bi, :language)
        on conflict do nothing returning id
        """),
        {
            "id": contact_id,
            "language": fields.get("language"),
            **await _sealed(session, contact_id, fields),
        },
    )
    return created


async def fill_contact(session: Session, contact_id: UUID, fields: dict[str, Any]) -> None:
    """Add what was unknown; what is known stays. A number that is another contact's is left with that one."""
    await session.execute(
        text("""
        with free as (
          select not exists (select from contacts o where o.email_bi = :email_bi) as email,
                 not exists (select from contacts o where o.phone_bi = :phone_bi) as phone)
        update contacts c set name = coalesce(c.name, :name), company = coalesce(c.company, :company), updated_at = clock_timestamp(),
               email = coalesce(c.email, case when free.email then cast(:email as bytea) end),
               email_bi = coalesce(c.email_bi, case when free.email then cast(:email_bi as bytea) end),
               phone = coalesce(c.phone, case when free.phone then cast(:phone as bytea) end),
               phone_bi = coalesce(c.phone_bi, case when free.phone then cast(:phone_bi as bytea) end)
          from free where c.id = :id and c.erased_at is null
        """),
        {"id": contact_id, **await _sealed(session, contact_id, fields)},
    )


async def list_contacts(session: Session, limit: int, before: datetime | None) -> list[dict[str, Any]]:
    rows = await session.execute(
        text(f"""
        select {_CONTACT} from contacts
         where erased_at is null and (cast(:before as timestamptz) is null or created_at < :before)
         order by created_at desc limit :limit
        """),
        {"limit": limit, "before": before},
    )
    return await _opened(session, "contacts", _SEALED, rows.all())


async def thread_contact(session: Session, thread_id: UUID) -> UUID | None:
    found: UUID | None = await session.scalar(
        text("select contact_id from threads where id = :id"), {"id": thread_id}
    )
    return found


async def add_pipeline(session: Session, name: str, stages: list[str]) -> None:
    """Make a pipeline with its stages; does nothing where the name is taken."""
    pipeline_id = await session.scalar(
        text("insert into pipelines (id, name) values (:id, :name) on conflict do nothing returning id"),
        {"id": new_id(), "name": name},
    )
    if pipeline_id is not None:
        await session.execute(
            text(
                "insert into stages (id, pipeline_id, name, position) values (:id, :pipeline, :name, :position)"
            ),
            [
                {"id": new_id(), "pipeline": pipeline_id, "name": stage, "position": position}
                for position, stage in enumerate(stages)
            ],
        )


async def add_lead(
    session: Session, *, contact_id: UUID, thread_id: UUID | None, title: str, summary: str | None
) -> tuple[UUID, str] | None:
    """A lead in the first stage of the oldest pipeline: (id, stage's name); None where contact or stage is missing."""
    lead_id, cipher, subject = new_id(), session.cipher, Subject.contact(contact_id)
    row = (
        await session.execute(
            text("""
            with stage as (
              select s.id, s.name from stages s join pipelines p on p.id = s.pipeline_id
               order by p.created_at, p.id, s.position limit 1),
            added as (
              insert into leads (id, contact_id, stage_id, thread_id, title, summary)
              select :id, c.id, stage.id, :thread, cast(:title as bytea), cast(:summary as bytea) from contacts c, stage
               where c.id = :contact and c.erased_at is null
              returning id)
            select added.id, stage.name from added, stage
            """),
            {
                "id": lead_id,
                "contact": contact_id,
                "thread": thread_id,
                "title": await cipher.seal("leads.title", lead_id, subject, title),
                "summary": None
                if summary is None
                else await cipher.seal("leads.summary", lead_id, subject, summary),
            },
        )
    ).one_or_none()
    return None if row is None else (row.id, row.name)


async def list_leads(
    session: Session, limit: int, before: datetime | None, lead_id: UUID | None = None
) -> list[dict[str, Any]]:
    rows = await session.execute(
        text("""
        select l.id, l.contact_id, l.stage_id, s.name as stage, l.thread_id, l.title, l.summary, l.created_at
          from leads l join stages s on s.id = l.stage_id
         where (cast(:before as timestamptz) is null or l.created_at < :before) and (cast(:id as uuid) is null or l.id = :id)
         order by l.created_at desc limit :limit
        """),
        {"limit": limit, "before": before, "id": lead_id},
    )
    return await _opened(session, "leads", ("title", "summary"), rows.all())


async def add_note(session: Session, contact_id: UUID, author: str, body: str) -> UUID:
    note_id = new_id()
    await session.execute(
        text("insert into notes (id, contact_id, author, text) values (:id, :contact, :author, :body)"),
        {
            "id": note_id,
            "contact": contact_id,
            "author": author,
            "body": await session.cipher.seal("notes.text", note_id, Subject.contact(contact_id), body),
        },
    )
    return note_id


async def list_notes(session: Session, contact_id: UUID) -> list[dict[str, Any]]:
    rows = await session.execute(
        text(
            "select id, contact_id, author, text, created_at from notes where contact_id = :id order by created_at desc limit 200"
        ),
        {"id": contact_id},
    )
    return await _opened(session, "notes", ("text",), rows.all())


async def list_pipelines(session: Session) -> list[dict[str, Any]]:
    rows = await session.execute(
        text("""
        select p.id, p.name, coalesce(jsonb_agg(jsonb_build_object('id', s.id, 'name', s.name, 'position', s.position)
                                                order by s.position) filter (where s.id is not null), '[]') as stages
          from pipelines p left join stages s on s.pipeline_id = p.id group by p.tenant_id, p.id, p.name, p.created_at order by p.created_at
        """)
    )
    return [dict(row._mapping) for row in rows]
