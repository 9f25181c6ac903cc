"""What must hold when everything is at rest. Each query gives one row a violation; none is the only good
answer.
"""

from dataclasses import dataclass
from typing import Any

from storage.sql import Session, text


@dataclass(frozen=True)
class Invariant:
    name: str
    meaning: str
    sql: str


INVARIANTS = (
    Invariant(
        "settled",
        "each accepted message is answered, dead or with a person; nothing is left open",
        "select m.tenant_id, m.id from inbox_messages m where m.state = 'pending'",
    ),
    Invariant(
        "one_reply_a_turn",
        "each answered turn has exactly one reply",
        """
        select i.tenant_id, i.turn_id as id from inbox_messages i
          left join inbox_messages o on o.tenant_id = i.tenant_id and o.in_reply_to = i.turn_id
         where i.direction = 'in' and i.state = 'answered' group by i.tenant_id, i.turn_id
        having count(distinct o.id) <> 1
        """,
    ),
    Invariant(
        "no_stray_reply",
        "no reply without an answered turn",
        """
        select o.tenant_id, o.id from inbox_messages o where o.direction = 'out' and not exists (
          select from inbox_messages i where i.tenant_id = o.tenant_id and i.turn_id = o.in_reply_to and
          i.direction = 'in'
             and i.state = 'answered')
        """,
    ),
    Invariant(
        "in_order",
        "replies stand in the order of their questions, each after its own",
        """ select o.tenant_id, o.id from inbox_messages o join inbox_messages i on i.tenant_id = o.tenant_id
        and i.id = o.in_reply_to
         where o.seq <= i.seq or exists (
          select from inbox_messages p join inbox_messages q on q.tenant_id = p.tenant_id and q.id =
          p.in_reply_to
           where p.tenant_id = o.tenant_id and p.thread_id = o.thread_id and p.seq < o.seq and q.seq > i.seq
           and p.created_at > i.created_at)
        """,
    ),
    Invariant(
        "no_gaps",
        "sequence numbers of a thread run from 1 to last_seq without gaps",
        """ select t.tenant_id, t.id from threads t left join inbox_messages m on m.tenant_id = t.tenant_id
        and m.thread_id = t.id
         group by t.tenant_id, t.id, t.last_seq having count(m.id) <> t.last_seq or coalesce(max(m.seq), 0) <>
         t.last_seq
        """,
    ),
    Invariant(
        "sent",
        "each reply has one outbox row, and it is sent or dead",
        """ select o.tenant_id, o.id from inbox_messages o left join outbox x on x.tenant_id = o.tenant_id and
        x.message_id = o.id
         where o.direction = 'out' group by o.tenant_id, o.id having count(x.id) <> 1 or bool_or(x.state =
         'pending')
        """,
    ),
    Invariant(
        "metered_once",
        "as many usage events as replies, turn by turn",
        """
        select coalesce(o.tenant_id, u.tenant_id) as tenant_id, coalesce(o.id, u.id) as id
          from (select * from inbox_messages where direction = 'out') o full join (select * from usage_events
          where kind = 'reply') u on u.tenant_id = o.tenant_id and u.turn_id = o.in_reply_to
         where o.id is null or u.id is null
        """,
    ),
    Invariant(
        "no_lease",
        "nobody holds a thread",
        "select tenant_id, id from threads where lease_until > clock_timestamp()",
    ),
    Invariant(
        "journal_whole",
        "steps of a turn run from 0 without gaps",
        """ select tenant_id, turn_id as id from turn_steps group by tenant_id, turn_id having max(ordinal) <>
        count(*) - 1 """,
    ),
    Invariant(
        "one_lead_a_call",
        "no more leads of a thread than its journal holds calls that make one (what was pruned or erased is left out)",
        """
        select made.tenant_id, made.id from (
          select l.tenant_id, l.thread_id, count(*) as leads, min(l.id::text) as id from leads l
            join threads t on t.tenant_id = l.tenant_id and t.id = l.thread_id and t.erased_at is null
           where l.created_at >= (select min(s.started_at) from turn_steps s
                                   where s.tenant_id = l.tenant_id and s.thread_id = l.thread_id)
           group by l.tenant_id, l.thread_id) made
         where made.leads > (select count(*) from turn_steps s where s.tenant_id = made.tenant_id
                                and s.thread_id = made.thread_id and s.kind = 'tool' and s.name = 'crm_create_lead')
        """,
    ),
    Invariant(
        "citable",
        "a ready document has chunks, each with an embedding",
        """ select d.tenant_id, d.id from documents d left join chunks c on c.tenant_id = d.tenant_id and
        c.document_id = d.id
          left join embeddings e on e.tenant_id = c.tenant_id and e.chunk_id = c.id and e.model =
          d.embedding_model
         where d.state = 'ready' group by d.tenant_id, d.id having count(c.id) = 0 or count(e.chunk_id) <>
         count(c.id)
        """,
    ),
)


async def violations(session: Session, limit: int = 20) -> dict[str, list[dict[str, Any]]]:
    """Violations by invariant, at most ``limit`` of each (platform role)."""
    found = {}
    for invariant in INVARIANTS:
        rows = await session.execute(text(f"select * from ({invariant.sql}) as violation limit {int(limit)}"))  # noqa: S608  # constants
        found[invariant.name] = [{key: str(value) for key, value in row._mapping.items()} for row in rows]
    return found


async def totals(session: Session) -> dict[str, int]:
    """How much the invariants were checked on."""
    row = (
        await session.execute(
            text("""
            select (select count(*) from inbox_messages where direction = 'in') as messages,
                   (select count(*) from inbox_messages where direction = 'out') as replies,
                   (select count(*) from inbox_messages where state = 'dead') as dead,
                   (select count(*) from usage_events) as usage_events, (select count(*) from leads) as leads,
                   (select count(*) from threads) as threads, (select count(*) from turn_steps) as turn_steps
            """)
        )
    ).one()
    return dict(row._mapping)
