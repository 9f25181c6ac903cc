"""Connection pools, one per role. Only storage.tenancy may import this: everybody else gets a session from
there.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from storage.settings import StorageSettings

# A peer that vanished without a word must not hold a connection for ever (facts: a black hole hangs by
# default).
_KEEPALIVE: Mapping[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


def make_engine(url: str, settings: StorageSettings, name: str) -> AsyncEngine:
    """A pool for one role. Parameters never show up in error texts: they may be personal data."""
    return create_async_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_pool_size,
        pool_pre_ping=False,
        pool_recycle=1800,
        pool_timeout=10,
        hide_parameters=True,
        connect_args={
            **_KEEPALIVE,
            "application_name": name,
            "options": f"-c statement_timeout={settings.statement_timeout_ms} -c idle_in_transaction_session_timeout=60000",
        },
    )
