"""The four database roles, how their passwords come about, and how an administrator's URL makes them."""

import hashlib
import hmac
from dataclasses import dataclass

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from storage.errors import ConfigurationError

OWNER, APP, PLATFORM = "secretary_owner", "secretary_app", "secretary_platform"
IDENTITY = "secretary_identity"


@dataclass(frozen=True)
class RoleUrls:
    """Database URLs by role. ``admin`` is None in processes that must not migrate."""

    admin: str | None
    app: str
    platform: str
    identity: str


def role_password(role: str, secret_key: str) -> str:
    """The password of a role, derived from the installation's secret so that no second secret has to be kept."""
    return hmac.new(secret_key.encode(), f"database-role:{role}".encode(), hashlib.sha256).hexdigest()


def derive_urls(admin_url: str, secret_key: str) -> RoleUrls:
    """The same server and database under the names of the three working roles."""
    base = make_url(admin_url)

    def as_role(role: str) -> str:
        url: URL = base.set(username=role, password=role_password(role, secret_key))
        return url.render_as_string(hide_password=False)

    return RoleUrls(admin=admin_url, app=as_role(APP), platform=as_role(PLATFORM), identity=as_role(IDENTITY))


def libpq_url(url: str) -> str:
    """The same URL for psycopg itself: without SQLAlchemy's driver name."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def ensure_roles(admin_url: str, secret_key: str) -> None:
    """Create the roles where they are missing, or give them the current password; idempotent.

    ``secretary_owner`` owns the tables and cannot log in; ``secretary_app`` is subject to row-level security;
    ``secretary_platform`` is not, and is used only through ``storage.tenancy.platform_session``;
    ``secretary_identity`` reaches accounts, sessions and keys, and nothing that a customer wrote.

    Raises:
        ConfigurationError: the administrator's role may not create them.
    """
    with psycopg.connect(libpq_url(admin_url), autocommit=True) as connection:
        database = connection.info.dbname
        # Two `migrate` at once would both find the role missing; the key is any constant of ours.
        connection.execute("select pg_advisory_lock(hashtext('secretary-roles'))")
        try:
            _create(connection, OWNER, "nologin")
            for role in (APP, IDENTITY):
                _create(
                    connection,
                    role,
                    "login nosuperuser nobypassrls nocreaterole nocreatedb noreplication",
                    secret_key,
                )
            _create(
                connection,
                PLATFORM,
                "login nosuperuser bypassrls nocreaterole nocreatedb noreplication",
                secret_key,
            )
            connection.execute(sql.SQL("grant {} to current_user").format(sql.Identifier(OWNER)))
            connection.execute(
                sql.SQL("grant connect, create, temporary on database {} to {}").format(
                    sql.Identifier(database), sql.Identifier(OWNER)
                )
            )
            connection.execute(
                sql.SQL("grant usage, create on schema public to {}").format(sql.Identifier(OWNER))
            )
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                "DATABASE_URL's role may not create the roles secretary_owner, secretary_app, secretary_identity and "
                "secretary_platform (which needs BYPASSRLS). Use a superuser for `python -m server migrate`, or create them by hand."
            ) from error
        finally:
            connection.execute("select pg_advisory_unlock(hashtext('secretary-roles'))")


def _create(
    connection: psycopg.Connection[tuple[object, ...]], role: str, options: str, secret_key: str | None = None
) -> None:
    exists = connection.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone()
    statement = sql.SQL("{} role {} {}").format(
        sql.SQL("alter" if exists else "create"),
        sql.Identifier(role),
        sql.SQL(options),
    )
    if secret_key is not None:
        statement += sql.SQL(" password {}").format(sql.Literal(role_password(role, secret_key)))
    connection.execute(statement)
