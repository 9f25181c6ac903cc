"""Bring a database up to date: roles, our tables, LangGraph's tables, their policies. Idempotent; run by one
at a time.
"""

import asyncio
from pathlib import Path

import psycopg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from storage.crypto.keyring import Keyring
from storage.models.all import Base
from storage.repositories.accounts import sync_system_roles
from storage.roles import OWNER, ensure_roles, libpq_url
from storage.sealing import seal_leftovers
from storage.settings import StorageSettings
from storage.tenancy import Database

# LangGraph's tables have no tenant column; their thread ids are "<tenant>:<thread>".
_PROTECT_CHECKPOINTS = """
alter table {table} enable row level security;
alter table {table} force row level security;
drop policy if exists tenant on {table};
create policy tenant on {table}
  using (split_part(thread_id, ':', 1) = (select nullif(current_setting('app.tenant_id', true), '')))
  with check (split_part(thread_id, ':', 1) = (select nullif(current_setting('app.tenant_id', true), '')));
grant select, insert, update, delete on {table} to secretary_app;
"""
CHECKPOINT_TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    return config


def migrate(settings: StorageSettings, keyring: Keyring | None = None) -> None:
    """Create roles, run all migrations as the owner role, set up the checkpoint tables, bring the system roles up to date,
    and seal what an older version has stored in clear.

    Args:
        keyring: wanted only where there is something to seal.

    Raises:
        ConfigurationError: DATABASE_URL or SECRET_KEY is missing, the role may not create roles, or there is something to
            seal and no key.
    """
    admin_url = settings.role_urls().admin or ""
    ensure_roles(admin_url, settings.require_secret_key())
    engine = create_engine(make_url(admin_url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            # Held until the connection closes: the second of two `migrate` waits and then finds nothing to
            # do.
            connection.execute(text("select pg_advisory_lock(hashtext('secretary-migrate'))"))
            connection.execute(text(f"set role {OWNER}"))
            connection.execute(text("set lock_timeout = '5s'"))
            connection.commit()
            command.upgrade(alembic_config(connection), "heads")
            _set_up_checkpoints(admin_url)
            asyncio.run(_finish(settings, keyring))
    finally:
        engine.dispose()


async def _finish(settings: StorageSettings, keyring: Keyring | None) -> None:
    """What needs our own code: under the lock of the migration, each step may be done twice."""
    database = Database(settings, keyring, "migrate")
    try:
        async with database.platform_session("migrate: the system roles of all tenants") as session:
            await sync_system_roles(session)
        await seal_leftovers(database, keyring)
    finally:
        await database.aclose()


def _set_up_checkpoints(admin_url: str) -> None:
    # setup() creates indexes concurrently, which PostgreSQL refuses inside a transaction: hence a connection
    # in autocommit.
    with psycopg.connect(
        libpq_url(admin_url), autocommit=True, prepare_threshold=0, row_factory=dict_row
    ) as connection:
        connection.execute(f"set role {OWNER}")
        PostgresSaver(connection).setup()
        for table in CHECKPOINT_TABLES:
            for statement in _PROTECT_CHECKPOINTS.format(table=table).strip().split(";\n"):
                connection.execute(statement.rstrip(";").encode())
        connection.execute("grant select on checkpoint_migrations to secretary_app")


def drift(admin_url: str) -> list[str]:
    """Differences between the models and a migrated database; empty when a migration was written for each
    change.
    """
    engine = create_engine(make_url(admin_url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection,
                opts={
                    "include_name": lambda name, kind, _: (
                        not (kind == "table" and str(name).startswith("checkpoint"))
                    )
                },
            )
            return [str(difference) for difference in compare_metadata(context, Base.metadata)]
    finally:
        engine.dispose()
