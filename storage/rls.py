"""What a migration says about a new table so that no tenant can reach another's rows in it."""

from alembic import op

from storage.base import CURRENT_TENANT
from storage.roles import APP, IDENTITY, PLATFORM


def protect(
    table: str, *, tenant_column: str = "tenant_id", app: str = "select, insert, update, delete"
) -> None:
    """Enable and force row-level security with one policy for reading and writing, and grant the working
    roles their rights.

    Args:
        table: name in schema public.
        tenant_column: what the policy compares; ``id`` for the table of tenants itself.
        app: rights of the app role; less for tables that it may only add to.
    """
    op.execute(f"alter table {table} enable row level security")
    op.execute(f"alter table {table} force row level security")
    op.execute(
        f"create policy tenant on {table} using ({tenant_column} = {CURRENT_TENANT}) with check ({tenant_column} = {CURRENT_TENANT})"
    )
    op.execute(f"grant {app} on {table} to {APP}")
    op.execute(f"grant select, insert, update, delete on {table} to {PLATFORM}")


def open_to_identity(table: str, rights: str) -> None:
    """Let the role that signs people in see a tenant table across tenants: for whom a key, a membership or a role stands
    is what it has to find out. Reviewed table by table; the catalogue lint has the list.

    Args:
        table: name in schema public, already protected.
        rights: what it may do there.
    """
    op.execute(f"create policy identity on {table} to {IDENTITY} using (true) with check (true)")
    op.execute(f"grant {rights} on {table} to {IDENTITY}")


def identity_only(table: str) -> None:
    """A table of no tenant that only the role ``secretary_identity`` reaches; the platform role may count and clean up."""
    op.execute(f"grant select, insert, update, delete on {table} to {IDENTITY}")
    op.execute(f"grant select, delete on {table} to {PLATFORM}")
