"""The catalogue lint: what PostgreSQL itself says about every table, view and function, one row for each violation."""

import psycopg

from storage.migrate import CHECKPOINT_TABLES

# Reviewed by hand: tables that belong to no tenant. `tenants` has a policy of its own, on `id`.
GLOBAL_TABLES = ("tenants", "alembic_version", "checkpoint_migrations")
APP = "secretary_app"

_LINT = """
with t as (select * from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm')),
tt as (select * from t where relkind in ('r', 'p') and relname <> all(%(global)s)),
p as (select tt.relname, polname, polcmd, polpermissive ok, coalesce(pg_get_expr(polqual, polrelid), '') u,
             coalesce(pg_get_expr(polwithcheck, polrelid), '') w from pg_policy join tt on tt.oid = polrelid)
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
 where relname in ('audit_log', 'turn_steps') and has_table_privilege(%(app)s, t.oid, x)
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
union all select 'role app is a member of ' || g.rolname, m.rolname from pg_auth_members
   join pg_roles g on g.oid = roleid join pg_roles m on m.oid = member where m.rolname = %(app)s
order by 1, 2
"""


def lint(connection: psycopg.Connection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Violations as (what, object); empty where every tenant table is walled in."""
    values = {
        "global": list(GLOBAL_TABLES),
        "unprotected": ["alembic_version", "checkpoint_migrations"],
        "checkpoints": list(CHECKPOINT_TABLES),
        "app": APP,
    }
    return connection.execute(_LINT.encode(), values).fetchall()
