"""What every table shares."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, ForeignKeyConstraint, MetaData, PrimaryKeyConstraint, func, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from storage.ids import new_id

# The policy of every tenant table. The sub-select makes it an initplan (evaluated once); nullif because a
# pooled connection
# that once had the setting answers '' and not NULL.
CURRENT_TENANT = "(select nullif(current_setting('app.tenant_id', true), '')::uuid)"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy reads this plain class attribute
        datetime: DateTime(timezone=True),
        UUID: postgresql.UUID(as_uuid=True),
        dict[str, Any]: postgresql.JSONB,
        list[Any]: postgresql.JSONB,
    }


class TenantTable(Base):
    """A table whose rows belong to one tenant. The tenant is taken from the session; services never pass it."""

    __abstract__ = True

    tenant_id: Mapped[UUID] = mapped_column(
        server_default=text("(nullif(current_setting('app.tenant_id', true), '')::uuid)")
    )


class TenantRow(TenantTable):
    """A tenant table with the usual key ``(tenant_id, id)``: a key that names the tenant cannot tell one
    about another's rows.
    """

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(default=new_id)
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Any, ...]:  # noqa: N805  # declared_attr hands in the class
        return (PrimaryKeyConstraint("tenant_id", "id"), to_tenant(), *cls.__constraints__())

    @classmethod
    def __constraints__(cls) -> tuple[Any, ...]:
        return ()


def to_tenant() -> ForeignKeyConstraint:
    """Each tenant table points at its tenant."""
    return ForeignKeyConstraint(["tenant_id"], ["tenants.id"], ondelete="CASCADE")


def within_tenant(column: str, table: str, ondelete: str = "CASCADE") -> ForeignKeyConstraint:
    """A reference that cannot leave the tenant: ``(tenant_id, column) -> table (tenant_id, id)``."""
    return ForeignKeyConstraint(
        ["tenant_id", column], [f"{table}.tenant_id", f"{table}.id"], ondelete=ondelete
    )
