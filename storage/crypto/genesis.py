"""The first master key of an installation that `make run` keeps by itself."""

import psycopg

from storage.crypto.masters import new_master_key
from storage.errors import ConfigurationError
from storage.roles import libpq_url


def first_master_key(admin_url: str) -> str:
    """An entry for MASTER_KEYS, where the database holds no data keys (or was never migrated). Store it before anything is sealed.

    Raises:
        ConfigurationError: there are data keys, so a master key existed and is lost; a new one would open nothing.
    """
    with psycopg.connect(libpq_url(admin_url)) as connection:
        (table,) = connection.execute("select to_regclass('public.data_keys')").fetchone() or (None,)
        (used,) = (
            (False,)
            if table is None
            else connection.execute("select exists (select from data_keys)").fetchone() or (True,)
        )
    if used:
        raise ConfigurationError(
            "The database holds encrypted data, but the data folder's secrets.json has no master key any more. "
            'Put its entry "master_keys" back from your backup. Nothing was changed.'
        )
    return new_master_key()
