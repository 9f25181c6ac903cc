"""Takes one wall away on purpose: a run that reports no leak then proves nothing."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest

from storage.sql import Session
from storage.tenancy import Database, TenantContext
from storage.vectors.index import Hit, VectorIndex

KINDS = ("policy:<table>", "filter:vectors", "route")


@contextmanager
def broken(wall: str | None, admin: psycopg.Connection[Any]) -> Iterator[None]:
    """For the length of a block: a table's policy lets everything pass, the index filters nothing, or the API's sessions pass
    row-level security.

    Raises:
        ValueError: there is no such wall.
    """
    with pytest.MonkeyPatch.context() as patch:
        kind, _, name = (wall or "").partition(":")
        if wall is None:
            pass
        elif kind == "policy" and name.isidentifier():
            admin.execute(f"create policy broken on {name} using (true) with check (true)".encode())
        elif wall == "filter:vectors":
            patch.setattr(VectorIndex, "query", _unfiltered)
        elif wall == "route":
            patch.setattr(Database, "tenant_session", _past_policies)
        else:
            raise ValueError(f"no such wall: {wall}; there are {', '.join(KINDS)}")
        try:
            yield
        finally:
            if kind == "policy":
                admin.execute(f"drop policy broken on {name}".encode())


async def _unfiltered(index: VectorIndex, context: TenantContext, vector: Any, limit: int) -> list[Hit]:
    found = await index._call(
        context,
        lambda collection: collection.query(
            query_embeddings=[vector], n_results=limit, include=["distances"]
        ),
    )
    return [Hit(UUID(one), 0.9) for one in found["ids"][0]]


@asynccontextmanager
async def _past_policies(
    database: Database, context: TenantContext, *, durable: bool = True
) -> AsyncIterator[Session]:
    """A tenant's session on the connection that the policies do not bind."""
    async with database._platform.begin() as connection:
        await connection.exec_driver_sql(f"select set_config('app.tenant_id', '{context.tenant_id}', true)")
        yield Session(connection, database._cipher(context.tenant_id, connection))
