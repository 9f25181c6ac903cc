"""Alembic's entry. The connection is handed in by storage.migrate, which has become the owner role on it."""

from alembic import context

from storage.models.all import Base


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    """Leave LangGraph's own tables out of the comparison; their migrations come with the library."""
    return not (kind == "table" and name is not None and name.startswith("checkpoint"))


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    include_name=_ours,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
