"""The long-lived parts of a process, built once from settings, and what route handlers get of them by name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from litestar import Request
from litestar.di import NamedDependency, Provide

from ingest.pipeline import IngestPipeline
from server.settings import ServerSettings
from storage.crypto.keyring import Keyring
from storage.crypto.masters import masters_from, verify_masters
from storage.crypto.settings import CryptoSettings
from storage.errors import ConfigurationError
from storage.files import FileStore
from storage.queue import Queue
from storage.redis import EventBus
from storage.repositories import idempotency
from storage.settings import StorageSettings
from storage.sql import Session
from storage.tenancy import Database, TenantContext
from storage.vectors.embedder import make_embedder
from storage.vectors.index import VectorIndex
from storage.vectors.settings import EmbeddingSettings
from tools.sdk.context import Resources
from tools.sdk.registry import Registry, load_registry

FILES_FOLDER = "files"  # in the data folder


@dataclass(frozen=True)
class Parts:
    """What the API and the worker are made of."""

    settings: ServerSettings
    storage: StorageSettings
    database: Database
    queue: Queue
    bus: EventBus
    resources: Resources
    intake: IngestPipeline
    registry: Registry
    files: FileStore

    async def aclose(self) -> None:
        await self.bus.aclose()
        await self.queue.aclose()
        await self.database.aclose()


def make_keyring(settings: CryptoSettings | None = None) -> Keyring:
    """The keys of a process.

    Raises:
        ConfigurationError: no master key is configured, or it is none.
    """
    settings = settings or CryptoSettings()
    return Keyring(
        masters_from(settings), cache_seconds=settings.key_cache_seconds, size=settings.key_cache_size
    )


def make_keyring_if_given() -> Keyring | None:
    """The same, or None where nothing says where the master keys are."""
    given = CryptoSettings()
    configured = given.master_keys or given.master_key_file or given.master_kms
    return make_keyring(given) if configured else None


def build_parts(
    process: str, settings: ServerSettings | None = None, storage: StorageSettings | None = None
) -> Parts:
    """Connect nothing yet, but make everything that connects.

    Raises:
        ConfigurationError: an address is missing.
        PluginError: a tool domain is not fit to be loaded.
    """
    settings, storage = settings or ServerSettings(), storage or StorageSettings()
    if storage.redis_url is None or storage.chroma_url is None:
        raise ConfigurationError(
            "REDIS_URL or CHROMA_URL is missing. Start everything with `make run`, or set both."
        )
    database = Database(storage, make_keyring(), process)
    embedder = make_embedder(EmbeddingSettings())
    vectors = VectorIndex(storage.chroma_url, embedder.model_id)
    queue = Queue(storage.redis_url)
    return Parts(
        settings=settings,
        storage=storage,
        database=database,
        queue=queue,
        bus=EventBus(storage.redis_url),
        resources=Resources(database, embedder, vectors),
        intake=IngestPipeline(database, embedder, vectors, queue),
        registry=load_registry(settings.enabled_plugins),
        files=FileStore(storage.data_dir / FILES_FOLDER),
    )


def keyring_of(parts: Parts) -> Keyring:
    """The keys of a process that looks at data."""
    keyring = parts.database.keyring
    if keyring is None:
        raise ConfigurationError("This process was started without master keys.")
    return keyring


async def require_keys(parts: Parts) -> None:
    """At the start of a process: what is sealed can be opened. Nothing is changed.

    Raises:
        MasterKeyMissing, ConfigurationError: a master key is lost or wrong.
    """
    keyring = keyring_of(parts)
    async with parts.database.platform_session("start: one key of each master in use is tried") as session:
        await verify_masters(session, keyring.masters)


@asynccontextmanager
async def opened_parts(process: str) -> AsyncIterator[Parts]:
    """The parts for the length of a command."""
    parts = build_parts(process)
    try:
        yield parts
    finally:
        await parts.aclose()


async def provide_context(request: Request[Any, Any, Any]) -> TenantContext:
    """Who is asking; put there by the guard."""
    context: TenantContext = request.scope["state"]["context"]
    return context


async def provide_session(
    request: Request[Any, Any, Any], context: NamedDependency[TenantContext]
) -> AsyncIterator[Session]:
    """The request's transaction: committed after the handler, rolled back when it raises."""
    database: Database = request.app.state.database
    async with database.tenant_session(context) as session:
        yield session
        if (begun := request.scope["state"].get("idempotency")) is not None:
            await idempotency.mark_committed(session, context.actor, begun.key)


def dependencies(parts: Parts) -> dict[str, Provide]:
    """What handlers may ask for by name. tools/<domain>/api.py needs no import of ours for it."""
    return {
        "context": Provide(provide_context),
        "session": Provide(provide_session),
        "resources": Provide(lambda: parts.resources, sync_to_thread=False),
        "intake": Provide(lambda: parts.intake, sync_to_thread=False),
        "queue": Provide(lambda: parts.queue, sync_to_thread=False),
    }
