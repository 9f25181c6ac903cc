"""The catalogue lint: what PostgreSQL itself says about every table, view and function, one row for each violation."""

import json

import psycopg

from storage.migrate import CHECKPOINT_TABLES

# Reviewed by hand: tables that belong to no tenant. `tenants` has a policy of its own, on `id`.
GLOBAL_TABLES = ("tenants", "alembic_version", "checkpoint_migrations")
# Reviewed by hand: people who sign in, and what they sign in with; the app's role has no right on them at all.
IDENTITY_TABLES = (
    "accounts", "recovery_codes", "passkeys", "sessions", "refresh_tokens", "one_time_tokens", "mails", "impersonations",
    "sso_identities", "feature_flags",
)  # fmt: skip
# Reviewed by hand: tenant tables that the role which signs people in sees across tenants, and what it may do there.
IDENTITY_RIGHTS = {
    "tenants": {"SELECT", "INSERT", "UPDATE"},
    "members": {"SELECT", "INSERT", "UPDATE"},
    "roles": {"SELECT", "INSERT"},
    "api_keys": {"SELECT", "UPDATE"},
    "service_accounts": {"SELECT"},
    "sso_connections": {"SELECT"},
    "data_keys": {"SELECT", "INSERT", "UPDATE"},  # under the tenant's policy: no policy of its own
}
APPEND_ONLY = ("audit_log", "turn_steps", "audit_head")
APP, IDENTITY, PLATFORM = "secretary_app", "secretary_identity", "secretary_platform"

_LINT = """
with t as (select * from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm')),
tt as (select * from t where relkind in ('r', 'p') and relname <> all(%(global)s) and relname <> all(%(people)s)),
p as (select tt.relname, polname, polcmd, polpermissive ok, coalesce(pg_get_expr(polqual, polrelid), '') u,
             coalesce(pg_get_expr(polwithcheck, polrelid), '') w from pg_policy join tt on tt.oid = polrelid
             where not (polname = 'identity' and tt.relname = any(%(open)s)
                        and polroles = array[(select oid from pg_roles where rolname = %(identity)s)])),
rights as (select relname, x from t, unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) x
            where relkind in ('r', 'p', 'v', 'm') and has_table_privilege(%(identity)s, t.oid, x)),
allowed as (select * from jsonb_to_recordset(%(allowed)s::jsonb) as a(relname text, x text))
select 'no tenant_id NOT NULL' v, relname::text from tt where relname <> all(%(checkpoints)s)
   and not exists (select from pg_attribute a where a.attrelid = tt.oid and attname = 'tenant_id' and attnotnull)
union all select 'RLS off or not forced', relname from t
 where relkind in ('r', 'p') and relname <> all(%(unprotected)s) and not (relrowsecurity and relforcerowsecurity)
union all select 'no tenant policy FOR ALL', relname from tt
 where not exists (select from p where p.relname = tt.relname and polcmd = '*' and ok and u like '%%app.tenant_id%%'
                   and w like '%%app.tenant_id%%')
union all select 'policy is no initplan: ' || polname, relname from p where u !~* 'select'
union all select 'permissive policy not bound to tenant: ' || polname, relname from p
 where ok and not (u || w like '%%app.tenant_id%%')
union all select 'checkpoint policy does not compare thread_id: ' || polname, relname from p
 where relname = any(%(checkpoints)s) and not (u like '%%split_part(thread_id%%' and w like '%%split_part(thread_id%%')
union all select 'app owns the table', relname from t where pg_has_role(%(app)s, relowner, 'usage')
union all select 'app has ' || x, relname from t, unnest(array['TRUNCATE', 'REFERENCES', 'TRIGGER']) x
 where relkind in ('r', 'p') and has_table_privilege(%(app)s, t.oid, x)
union all select 'app may change a global table: ' || x, relname from t, unnest(array['INSERT', 'UPDATE', 'DELETE']) x
 where relname = any(%(global)s) and has_table_privilege(%(app)s, t.oid, x)
union all select 'app may change history: ' || x, relname from t, unnest(array['UPDATE', 'DELETE']) x
 where relname = any(%(appended)s) and has_table_privilege(%(app)s, t.oid, x)
union all select 'app may write the audit log past its function', relname from t
 where relname in ('audit_log', 'audit_head') and has_table_privilege(%(app)s, t.oid, 'INSERT')
union all select 'platform may change the audit log: ' || x, relname from t, unnest(array['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) x
 where relname in ('audit_log', 'audit_head') and has_table_privilege(%(platform)s, t.oid, x)
union all select 'app has ' || x || ' on people', relname from t, unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE']) x
 where relname = any(%(people)s) and has_table_privilege(%(app)s, t.oid, x)
union all select 'identity has ' || x, relname::text from rights
 where not exists (select from allowed where allowed.relname = rights.relname and allowed.x = rights.x)
union all select 'a function that changes history is open to ' || r, proname from pg_proc, unnest(array[%(app)s, %(identity)s, 'public']) r
 where pronamespace = 'public'::regnamespace and proname in ('audit_prune', 'prune_turns') and
       case r when 'public' then exists (select from unnest(coalesce(proacl, acldefault('f', proowner))) a where a::text like '=X%%')
              else has_function_privilege(r, oid, 'EXECUTE') end
union all select 'SECURITY DEFINER is open to everybody', proname from pg_proc
 where pronamespace = 'public'::regnamespace and prosecdef
   and exists (select from unnest(coalesce(proacl, acldefault('f', proowner))) a where a::text like '=X%%')
union all select 'everybody has a right', relname from t, unnest(coalesce(relacl, '{}')) acl where acl::text like '=%%'
union all select 'no index leading with ' || k.name, relname from tt,
   lateral (select case when relname = any(%(checkpoints)s) then 'thread_id' else 'tenant_id' end as name) k
 where not exists (select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
                    where i.indrelid = tt.oid and attname = k.name)
union all select 'FK leaves the tenant: ' || conname, tt.relname from pg_constraint k join tt on tt.oid = conrelid
 where contype = 'f' and confrelid <> 'tenants'::regclass
   and not exists (select from unnest(conkey, confkey) as pair(mine, theirs)
                     join pg_attribute a on a.attrelid = conrelid and a.attnum = mine
                     join pg_attribute b on b.attrelid = confrelid and b.attnum = theirs
                    where a.attname = 'tenant_id' and b.attname = 'tenant_id')
union all select 'view without security_invoker', relname from t
 where relkind = 'v' and not 'security_invoker=true' = any(coalesce(reloptions, '{}'))
union all select 'app can read matview', relname from t where relkind = 'm' and has_table_privilege(%(app)s, oid, 'SELECT')
union all select 'SECURITY DEFINER without search_path', proname from pg_proc
 where pronamespace = 'public'::regnamespace and prosecdef
   and not exists (select from unnest(proconfig) c where c like 'search_path=%%')
union all select 'role app too strong', rolname from pg_roles
 where rolname = %(app)s and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)
union all select 'role identity too strong', rolname from pg_roles
 where rolname = %(identity)s and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)
union all select 'role is a member of ' || g.rolname, m.rolname from pg_auth_members
   join pg_roles g on g.oid = roleid join pg_roles m on m.oid = member where m.rolname in (%(app)s, %(identity)s)
order by 1, 2
"""


def lint(connection: psycopg.Connection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Violations as (what, object); empty where every tenant table is walled in."""
    values = {
        "global": list(GLOBAL_TABLES),
        "people": list(IDENTITY_TABLES),
        "open": [table for table in IDENTITY_RIGHTS if table != "data_keys"],
        "allowed": json.dumps(
            [{"relname": table, "x": right} for table, rights in IDENTITY_RIGHTS.items() for right in rights]
            + [
                {"relname": table, "x": right}
                for table in IDENTITY_TABLES
                for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
            ]
        ),
        "appended": list(APPEND_ONLY),
        "identity": IDENTITY,
        "platform": PLATFORM,
        "unprotected": ["alembic_version", "checkpoint_migrations", *IDENTITY_TABLES],
        "checkpoints": list(CHECKPOINT_TABLES),
        "app": APP,
    }
    return connection.execute(_LINT.encode(), values).fetchall()
