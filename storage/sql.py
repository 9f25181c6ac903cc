"""What repositories speak: SQL texts, parsed once each, over an open transaction."""

from functools import lru_cache

from sqlalchemy import text as parse
from sqlalchemy.ext.asyncio import AsyncConnection

Session = AsyncConnection
"""An open transaction from storage.tenancy. A connection and not an ORM session: we write SQL, and it costs half as much."""

text = lru_cache(maxsize=1024)(parse)
"""``sqlalchemy.text`` that remembers: values go in as bound parameters only, so the number of texts is small."""
