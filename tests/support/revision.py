"""`make revision MESSAGE="what it does"`: a migration from the difference between the models and the migrations so far."""

import sys
import tempfile
from pathlib import Path

from alembic import command
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from server import embedded
from server.embedded import free_port
from storage.migrate import alembic_config, migrate
from storage.roles import OWNER
from storage.settings import StorageSettings
from tests.support.servers import PASSWORD, SECRET_KEY


def main(message: str) -> int:
    """Starts a PostgreSQL of its own, migrates it, and writes the new file beside the others."""
    with tempfile.TemporaryDirectory(prefix="secretary-revision-") as folder:
        port = free_port()
        child = embedded.postgres(Path(folder) / "postgres", port, PASSWORD, Path(folder) / "logs")
        child.start()
        try:
            child.wait_ready()
            url = embedded.postgres_url(port, PASSWORD)
            migrate(StorageSettings.model_validate({"database_url": url, "secret_key": SECRET_KEY}))
            engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
            with engine.connect() as connection:
                connection.exec_driver_sql(f"set role {OWNER}")
                connection.commit()
                command.revision(alembic_config(connection), message=message, autogenerate=True)
            engine.dispose()
        finally:
            child.stop()
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        raise SystemExit('usage: make revision MESSAGE="what it does"')
    raise SystemExit(main(sys.argv[1]))
