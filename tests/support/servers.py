"""PostgreSQL, Redis and Chroma for a test run: the product's own embedded servers, without waiting for the
disk.
"""

import base64
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from server import embedded
from server.embedded import Child, free_port
from storage.migrate import migrate
from storage.settings import StorageSettings

SECRET_KEY = "a secret for tests, as long as it has to be"
PASSWORD = "only-for-tests"
MASTER_KEYS = "test:" + base64.b64encode(b"a master key for tests, 32 bytes"[:32]).decode()
TEMPLATE = "secretary_template"
NO_DISK = ("fsync=off", "full_page_writes=off", "max_connections=300", "shared_buffers=64MB")


@dataclass
class Servers:
    """Running servers and their addresses."""

    folder: Path
    postgres: Child
    redis: Child
    chroma: Child
    postgres_port: int
    redis_url: str
    chroma_url: str

    def database_url(self, name: str = "postgres") -> str:
        return embedded.postgres_url(self.postgres_port, PASSWORD, name)

    def stop(self) -> None:
        for child in (self.chroma, self.redis, self.postgres):
            child.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def start_servers(options: Sequence[str] = NO_DISK) -> Servers:
    """Start all three in a folder of their own. Call from the main thread."""
    folder = Path(tempfile.mkdtemp(prefix="secretary-test-"))
    ports = [free_port() for _ in range(3)]
    logs = folder / "logs"
    postgres = embedded.postgres(folder / "postgres", ports[0], PASSWORD, logs, options)
    redis = embedded.redis(folder / "redis", ports[1], logs)
    chroma = embedded.chroma(folder / "chroma", ports[2], logs)
    servers = Servers(
        folder,
        postgres,
        redis,
        chroma,
        ports[0],
        f"redis://127.0.0.1:{ports[1]}",
        f"http://127.0.0.1:{ports[2]}",
    )
    for child in (postgres, redis, chroma):
        child.start()
    for child in (postgres, redis, chroma):
        child.wait_ready()
    return servers


def settings_for(servers_env: "Addresses", database: str, **more: object) -> StorageSettings:
    """Storage settings for one database of a run."""
    return StorageSettings.model_validate(
        {
            "database_url": servers_env.database_url(database),
            "secret_key": SECRET_KEY,
            "redis_url": servers_env.redis_url,
            "chroma_url": servers_env.chroma_url,
            "SECRETARY_DATA": servers_env.data_dir,
            "database_pool_size": 5,
            **more,
        }
    )


@dataclass(frozen=True)
class Addresses:
    """The same addresses in another process: pytest-xdist's workers get them by the environment."""

    postgres_port: int
    redis_url: str
    chroma_url: str
    data_dir: Path

    def database_url(self, name: str) -> str:
        return embedded.postgres_url(self.postgres_port, PASSWORD, name)

    def publish(self) -> None:
        os.environ["TEST_ADDRESSES"] = (
            f"{self.postgres_port} {self.redis_url} {self.chroma_url} {self.data_dir}"
        )

    @classmethod
    def published(cls) -> "Addresses":
        port, redis_url, chroma_url, folder = os.environ["TEST_ADDRESSES"].split(" ", 3)
        return cls(int(port), redis_url, chroma_url, Path(folder))


def make_template(addresses: Addresses) -> None:
    """The database that tests are cloned from, built by the real migrations."""
    import psycopg

    with psycopg.connect(addresses.database_url("postgres"), autocommit=True) as connection:
        connection.execute(f"create database {TEMPLATE}".encode())
    migrate(settings_for(addresses, TEMPLATE))
