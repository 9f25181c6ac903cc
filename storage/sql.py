"""What repositories speak: SQL texts, parsed once each, over an open transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import CursorResult, ScalarResult
from sqlalchemy import text as parse
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import TextClause

if TYPE_CHECKING:
    from storage.crypto.cipher import Cipher

text = lru_cache(maxsize=1024)(parse)
"""``sqlalchemy.text`` that remembers: values go in as bound parameters only, so the number of texts is small."""

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


class Session:
    """An open transaction from storage.tenancy, and the keys of the tenant on whose behalf it was opened.

    A connection underneath and not an ORM session: we write SQL, and it costs half as much.

    Attributes:
        cipher: seals and opens what the column registry marks as sealed.
    """

    __slots__ = ("_cipher", "_connection")

    def __init__(self, connection: AsyncConnection, cipher: Cipher | None = None) -> None:
        self._connection = connection
        self._cipher = cipher

    @property
    def cipher(self) -> Cipher:
        """The tenant's.

        Raises:
            RuntimeError: the session crosses tenants, so it must not see content.
        """
        if self._cipher is None:
            raise RuntimeError("this session belongs to no tenant: it cannot open anybody's data")
        return self._cipher

    @property
    def connection(self) -> AsyncConnection:
        """The transaction itself: for those that bring their own cipher."""
        return self._connection

    async def execute(self, statement: TextClause, parameters: Parameters = None) -> CursorResult[Any]:
        return await self._connection.execute(statement, parameters)

    async def scalar(self, statement: TextClause, parameters: Mapping[str, Any] | None = None) -> Any:
        """The first column of the first row, or None."""
        return await self._connection.scalar(statement, parameters)

    async def scalars(
        self, statement: TextClause, parameters: Mapping[str, Any] | None = None
    ) -> ScalarResult[Any]:
        """The first column of each row."""
        return await self._connection.scalars(statement, parameters)
