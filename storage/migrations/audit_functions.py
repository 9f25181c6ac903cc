"""The audit log's functions in the database: the only way into it, and the only way out.

They run as the owner, under the tenant's policy like everybody: the session's tenant is the tenant of the entry.
"""

from collections.abc import Sequence

# Each field as "<bytes>:<text>", NULL as "-", joined by commas (netstrings): no two entries read the same. The same is
# computed outside the database by storage/repositories/audit.py, so that a changed function does not hide a changed row.
_HASH = """
create function audit_hash(entry audit_log) returns bytea language sql stable set search_path = public, pg_temp as $$
  select sha256(entry.prev || convert_to((
    select string_agg(coalesce(octet_length(field) || ':' || field, '-'), ',' order by place)
      from unnest(array[
        entry.tenant_id::text, entry.seq::text, entry.id::text,
        to_char(entry.created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
        entry.actor, entry.action, entry.object_type, entry.object_id, entry.detail::text, entry.reason, entry.request_id
      ]) with ordinality as fields (field, place)), 'UTF8'))
$$
"""
_APPEND = """
create function audit_append(who text, act text, kind text, object text, what jsonb, why text, request text, entry_id uuid)
returns int language plpgsql security definer set search_path = public, pg_temp as $$
declare
  tenant uuid := nullif(current_setting('app.tenant_id', true), '')::uuid;
  head audit_head%rowtype;
  entry audit_log%rowtype;
begin
  -- The lock of the head puts the entries of one tenant in order.
  select * into head from audit_head where tenant_id = tenant for update;
  if not found then
    insert into audit_head (tenant_id, seq, hash, base_seq, base_hash) values (tenant, 0, '\\x00', 0, '\\x00') on conflict do nothing;
    select * into head from audit_head where tenant_id = tenant for update;
  end if;
  entry.tenant_id := tenant; entry.seq := head.seq + 1; entry.id := entry_id; entry.created_at := clock_timestamp();
  entry.actor := who; entry.action := act; entry.object_type := kind; entry.object_id := object; entry.detail := what;
  entry.reason := why; entry.request_id := request; entry.prev := head.hash;
  entry.hash := audit_hash(entry);
  insert into audit_log select entry.*;
  update audit_head set seq = entry.seq, hash = entry.hash where tenant_id = tenant;
  return entry.seq;
end $$
"""
_PRUNE = """
create function audit_prune(tenant uuid, before timestamptz) returns int language plpgsql security definer
set search_path = public, pg_temp as $$
declare last audit_log%rowtype; removed int;
begin
  if before > clock_timestamp() - interval '30 days' then
    raise exception 'audit entries of the last 30 days stay';
  end if;
  perform set_config('app.tenant_id', tenant::text, true);
  perform 1 from audit_head where tenant_id = tenant for update;
  -- Up to the first entry that stays: what is removed is a beginning of the chain, never a piece out of it.
  select * into last from audit_log where tenant_id = tenant and seq < coalesce(
    (select min(seq) from audit_log where tenant_id = tenant and created_at >= before),
    (select h.seq from audit_head h where h.tenant_id = tenant)) order by seq desc limit 1;
  if last.id is null then return 0; end if;
  delete from audit_log where tenant_id = tenant and seq <= last.seq;
  get diagnostics removed = row_count;
  update audit_head set base_seq = last.seq, base_hash = last.hash where tenant_id = tenant;
  return removed;
end $$
"""
_FORGET_TURNS = """
create function forget_turns(threads uuid[]) returns int language plpgsql security definer set search_path = public, pg_temp as $$
declare removed int;
begin
  -- Only of conversations that are being erased: the journal is append-only for everything else.
  delete from turn_steps s using threads t where s.tenant_id = t.tenant_id and s.thread_id = t.id and t.erased_at is not null
     and t.id = any(forget_turns.threads);
  get diagnostics removed = row_count;
  return removed;
end $$
"""
_PRUNE_TURNS = """
create function prune_turns(tenant uuid, before timestamptz) returns int language plpgsql security definer
set search_path = public, pg_temp as $$
declare removed int;
begin
  perform set_config('app.tenant_id', tenant::text, true);
  -- Whole turns; one that is still open needs its journal, however old it is, and a legal hold keeps everything.
  delete from turn_steps d using (
    select s.turn_id from turn_steps s where s.tenant_id = tenant group by s.turn_id having max(s.ended_at) < before) old
   where d.tenant_id = tenant and d.turn_id = old.turn_id
     and not exists (select from inbox_messages m where m.tenant_id = tenant and m.turn_id = d.turn_id and m.state = 'pending')
     and not exists (select from threads t join contacts c on c.tenant_id = t.tenant_id and c.id = t.contact_id
                      where t.tenant_id = tenant and t.id = d.thread_id and c.legal_hold is not null);
  get diagnostics removed = row_count;
  return removed;
end $$
"""
AUDIT_FUNCTIONS: Sequence[str] = (_HASH, _APPEND, _PRUNE, _FORGET_TURNS, _PRUNE_TURNS)
