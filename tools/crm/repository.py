"""Every SQL statement of the CRM. Row-level security limits each to the session's tenant."""

from datetime import datetime
from typing import Any
from uuid import UUID

from storage.ids import new_id
from storage.sql import Session, text

_CONTACT = "id, name, email, phone, company, language, created_at"


async def contact_by_id(session: Session, contact_id: UUID) -> dict[str, Any] | None:
    row = (
        await session.execute(text(f"select {_CONTACT} from contacts where id = :id"), {"id": contact_id})
    ).one_or_none()
    return None if row is None else dict(row._mapping)


async def contact_by_reach(session: Session, email: str | None, phone: str | None) -> dict[str, Any] | None:
    """The contact with this e-mail, else the one with this phone number. Locked: two turns must not fill it
    in at once.
    """
    row = (
        await session.execute(
            text(f"""
            select {_CONTACT} from contacts where email = :email or phone = :phone
             order by (email = :email) desc nulls last limit 1 for update
            """),
            {"email": email, "phone": phone},
        )
    ).one_or_none()
    return None if row is None else dict(row._mapping)


async def add_contact(session: Session, fields: dict[str, Any]) -> UUID | None:
    """The new id; None where e-mail or phone is taken (a concurrent turn was faster)."""
    created: UUID | None = await session.scalar(
        text("""
        insert into contacts (id, name, email, phone, company, language) values (:id, :name, :email, :phone, :company, :language)
        on conflict do nothing returning id
        """),
        {
            "id": new_id(),
            "name": None,
            "email": None,
            "phone": None,
            "company": None,
            "language": None,
            **fields,
        },
    )
    return created


async def fill_contact(session: Session, contact_id: UUID, fields: dict[str, Any]) -> None:
    """Add what was unknown; what is known stays. A number that is another contact's is left with that one."""
    await session.execute(
        text("""
        update contacts c set name = coalesce(c.name, :name), company = coalesce(c.company, :company), updated_at = clock_timestamp(),
               email = coalesce(c.email, case when not exists (select from contacts o where o.email = :email) then :email end),
               phone = coalesce(c.phone, case when not exists (select from contacts o where o.phone = :phone) then :phone end)
         where id = :id
        """),
        {"id": contact_id, "name": None, "company": None, "email": None, "phone": None, **fields},
    )


async def list_contacts(session: Session, limit: int, before: datetime | None) -> list[dict[str, Any]]:
    rows = await session.execute(
        text(f"""
        select {_CONTACT} from contacts where cast(:before as timestamptz) is null or created_at < :before
         order by created_at desc limit :limit
        """),
        {"limit": limit, "before": before},
    )
    return [dict(row._mapping) for row in rows]


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
    row = (
        await session.execute(
            text("""
            with stage as (
              select s.id, s.name from stages s join pipelines p on p.id = s.pipeline_id
               order by p.created_at, p.id, s.position limit 1),
            added as (
              insert into leads (id, contact_id, stage_id, thread_id, title, summary)
              select :id, c.id, stage.id, :thread, :title, :summary from contacts c, stage where c.id = :contact
              returning id)
            select added.id, stage.name from added, stage
            """),
            {"id": new_id(), "contact": contact_id, "thread": thread_id, "title": title, "summary": summary},
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
    return [dict(row._mapping) for row in rows]


async def add_note(session: Session, contact_id: UUID, author: str, body: str) -> UUID:
    note_id = new_id()
    await session.execute(
        text("insert into notes (id, contact_id, author, text) values (:id, :contact, :author, :body)"),
        {"id": note_id, "contact": contact_id, "author": author, "body": body},
    )
    return note_id


async def list_notes(session: Session, contact_id: UUID) -> list[dict[str, Any]]:
    rows = await session.execute(
        text(
            "select id, contact_id, author, text, created_at from notes where contact_id = :id order by created_at desc limit 200"
        ),
        {"id": contact_id},
    )
    return [dict(row._mapping) for row in rows]


async def list_pipelines(session: Session) -> list[dict[str, Any]]:
    rows = await session.execute(
        text("""
        select p.id, p.name, coalesce(jsonb_agg(jsonb_build_object('id', s.id, 'name', s.name, 'position', s.position)
                                                order by s.position) filter (where s.id is not null), '[]') as stages
          from pipelines p left join stages s on s.pipeline_id = p.id group by p.tenant_id, p.id, p.name, p.created_at order by p.created_at
        """)
    )
    return [dict(row._mapping) for row in rows]
