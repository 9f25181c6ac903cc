"""`python -m server run`: one parent that starts what is missing, migrates, seeds, starts API and worker,
restarts what dies, stops all.

Where an address is given (DATABASE_URL, REDIS_URL, CHROMA_URL) that server is used and none is started.
"""

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from server import embedded
from server.embedded import ROOT, Child, free_port, http_ready, listen_on
from storage.crypto.genesis import first_master_key
from storage.crypto.settings import CryptoSettings
from storage.errors import ConfigurationError
from storage.roles import RoleUrls, derive_urls
from storage.settings import StorageSettings

STATE_FILE = "state.json"
_PYTHON = (sys.executable, "-m", "server")
PREFERRED_PORT = 8700
BACKOFF = (0.1, 0.5, 1.0, 2.0, 5.0)  # seconds before a child that keeps dying is started again
STEADY_SECONDS = 20.0


@dataclass
class DataFolder:
    """What one installation keeps on disk, held by one parent at a time.

    Raises:
        ConfigurationError: another parent uses it.
    """

    path: Path
    _lock: IO[str] | None = None
    _held: bool = False
    memory: dict[str, Any] = field(default_factory=dict)

    def open(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = (self.path / "lock").open("w")
        # After a kill -9 of the parent its children need a moment to end; they do not hold the lock, the
        # parent did.
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"Another `make run` uses {self.path}. Stop it, or choose another folder: SECRETARY_DATA=… make run"
            ) from error
        self._held = True
        self.clear_state()
        kept = self.path / "secrets.json"
        if kept.exists():
            self.memory = json.loads(kept.read_text())
        for name in ("secret_key", "postgres_password"):
            self.memory.setdefault(name, secrets.token_hex(32))
        self.memory.setdefault("staff_password", secrets.token_urlsafe(12))
        self.save()

    def save(self) -> None:
        """Write what is remembered; whole or not at all, and on the disk before anything is sealed under what it holds."""
        fresh = self.path / "secrets.json.new"
        fresh.touch(mode=0o600)
        with fresh.open("w") as file:
            json.dump(self.memory, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / "secrets.json")
        folder = os.open(self.path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def port(self, name: str) -> int:
        """A free port, the same as last time where it is still free."""
        port = free_port(self.memory.get(f"{name}_port"))
        self.memory[f"{name}_port"] = port
        return port

    def write_state(self, state: dict[str, Any]) -> None:
        fresh = self.path / f"{STATE_FILE}.new"
        fresh.write_text(json.dumps(state, indent=1) + "\n")
        fresh.replace(self.path / STATE_FILE)

    def clear_state(self) -> None:
        """Nothing runs here: at the end, and at the start after a kill -9. Not where another parent holds the folder."""
        if self._held:
            (self.path / STATE_FILE).unlink(missing_ok=True)


class Parent:
    """Starts and keeps everything.

    Args:
        settings: addresses that were given, and the data folder.
        workers: number of worker processes.
        seed: make the demo tenant.
        reload: restart API and worker when a file changes.
    """

    def __init__(
        self,
        settings: StorageSettings,
        *,
        workers: int = 1,
        seed: bool = True,
        reload: bool = False,
        port: int | None = None,
    ) -> None:
        self._settings = settings
        self._workers = workers
        self._seed = seed
        self._reload = reload
        self._port = port
        self._folder = DataFolder(settings.data_dir.resolve())
        self._logs = self._folder.path / "logs"
        self._admin_url = ""
        self._listener: socket.socket | None = None
        self._state: dict[str, Any] = {}
        self._children: list[Child] = []
        self._deaths: dict[str, int] = {}
        self._stopping = False

    def run(self) -> int:
        """Start everything, keep it running until a signal, stop everything. Returns the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._folder.open()
            self._start()
            self._keep()
        except _Stopped:
            pass
        except ConfigurationError as error:
            print(f"\nerror: {error.message}", file=sys.stderr)
            return 1
        finally:
            self._stopping = True
            self._stop()
        return 0

    def _on_signal(self, _number: int, _frame: object) -> None:
        if not self._stopping:
            self._stopping = True
            raise _Stopped

    def _start(self) -> None:
        began = time.monotonic()
        environment = self._start_servers()
        environment |= self._master_keys()
        self._folder.save()
        self._command("migrate", {**environment, "DATABASE_URL": self._admin_url})
        memory = self._folder.memory
        self._listener = listen_on(self._port or memory.get("api_port", PREFERRED_PORT))
        port = memory["api_port"] = self._listener.getsockname()[1]
        self._folder.save()
        base = f"http://127.0.0.1:{port}"
        if self._seed:
            origins = f"{base},http://localhost:{port}"
            self._command(
                "seed",
                {
                    **environment,
                    "SEED_ORIGINS": origins,
                    "SEED_STAFF_PASSWORD": self._folder.memory["staff_password"],
                },
            )
        self._begin(*self._workers_of(environment), self._api_of(environment, base))
        self._state = {
            "api": base,
            "demo": f"{base}/demo",
            "docs": f"{base}/docs",
            "pid": os.getpid(),
            "logs": str(self._logs),
        }
        self._write_state()
        self._announce(time.monotonic() - began)

    def _master_keys(self) -> dict[str, str]:
        """Where the keys that wrap all others are: given from outside, or our own, made once for a database that has none.

        Raises:
            ConfigurationError: the database is sealed under a key that we do not have.
        """
        given = CryptoSettings()
        if given.master_keys or given.master_key_file or given.master_kms:
            return {}
        memory = self._folder.memory
        if "master_keys" not in memory:
            memory["master_keys"] = first_master_key(self._admin_url)
        return {"MASTER_KEYS": memory["master_keys"]}

    def _api_of(self, environment: dict[str, str], base: str) -> Child:
        assert self._listener is not None
        return Child(
            name="api",
            command=[*_PYTHON, "api", "--fd", str(self._listener.fileno())],
            pass_fds=(self._listener.fileno(),),
            ready=lambda: http_ready(f"{base}/health/ready"),
            log=self._logs / "api.log",
            env=environment,
        )

    def _workers_of(self, environment: dict[str, str]) -> list[Child]:
        children = []
        for number in range(1, self._workers + 1):
            ready = self._folder.path / f"worker-{number}.ready"
            ready.unlink(missing_ok=True)
            children.append(
                Child(
                    name=f"worker-{number}",
                    command=[*_PYTHON, "worker"],
                    ready=ready.exists,
                    log=self._logs / f"worker-{number}.log",
                    env={**environment, "READY_FILE": str(ready)},
                )
            )
        return children

    def _write_state(self) -> None:
        children = {child.name: child.process.pid for child in self._children if child.process}
        self._folder.write_state({**self._state, "children": children})

    def _announce(self, seconds: float) -> None:
        state = self._state
        print(f"\nAI Secretary is ready ({seconds:.1f} s).\n")
        if self._seed:
            print(f"  demo page   {state['demo']}")
        print(f"  API docs    {state['docs']}")
        if self._seed:
            print(
                f"  sign in     tenant alpenrad, staff@alpenrad.example, password {self._folder.memory['staff_password']}"
            )
        print(
            f"  terminal    python -m server chat        logs  {state['logs']}\n\nCtrl-C stops everything.",
            flush=True,
        )

    def _start_servers(self) -> dict[str, str]:
        """The servers that nobody gave us, and the environment in which our processes find all."""
        memory, path = self._folder.memory, self._folder.path
        settings = self._settings
        secret = settings.secret_key.get_secret_value() if settings.secret_key else memory["secret_key"]
        started: list[Child] = []
        if settings.database_url is None:
            port = self._folder.port("postgres")
            started.append(
                embedded.postgres(path / "postgres", port, memory["postgres_password"], self._logs)
            )
            self._admin_url = embedded.postgres_url(port, memory["postgres_password"])
        else:
            self._admin_url = settings.database_url.get_secret_value()
        redis_url, chroma_url = settings.redis_url, settings.chroma_url
        if redis_url is None:
            port = self._folder.port("redis")
            started.append(embedded.redis(path / "redis", port, self._logs))
            redis_url = f"redis://127.0.0.1:{port}/0"
        if chroma_url is None:
            port = self._folder.port("chroma")
            started.append(embedded.chroma(path / "chroma", port, self._logs))
            chroma_url = f"http://127.0.0.1:{port}"
        self._begin(*started)
        urls: RoleUrls = derive_urls(self._admin_url, secret)
        return {
            "SECRETARY_DATA": str(path),
            "MODEL_CACHE_DIR": os.environ.get("MODEL_CACHE_DIR", str(path / "models")),
            "SECRET_KEY": secret,
            "DATABASE_APP_URL": urls.app,
            "DATABASE_PLATFORM_URL": urls.platform,
            "DATABASE_IDENTITY_URL": urls.identity,
            "DATABASE_URL": "",  # API and worker do not hold the administrator's password
            "REDIS_URL": redis_url,
            "CHROMA_URL": chroma_url,
        }

    def _begin(self, *children: Child) -> None:
        """Start side by side, then wait for each."""
        for child in children:
            child.start()
            self._children.append(child)
        for child in children:
            child.wait_ready(90)
            print(f"  {child.name:10} ready", flush=True)

    def _command(self, name: str, environment: dict[str, str]) -> None:
        """Run one of our commands to its end, in sight of whoever started us.

        Raises:
            ConfigurationError: it failed; it has said why.
        """
        print(f"  {name} …", flush=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "server", name],
            cwd=ROOT,
            env={**os.environ, **environment},
            preexec_fn=embedded.die_with_parent(signal.SIGTERM),
            start_new_session=True,
        )
        try:
            code = process.wait()
        except _Stopped:
            process.terminate()
            process.wait()
            raise
        if code != 0:
            raise ConfigurationError(f"`python -m server {name}` failed (exit {code}).")

    def _keep(self) -> None:
        """Restart what dies, until stopped."""
        changes = _Changes() if self._reload else None
        while True:
            time.sleep(0.1)
            for child in self._children:
                if not child.alive:
                    self._revive(child)
            if changes is not None and changes.seen():
                for child in self._children:
                    if child.name == "api" or child.name.startswith("worker"):
                        print(f"  {child.name} restarts: files changed", flush=True)
                        child.stop(5)
                        child.start()

    def _revive(self, child: Child) -> None:
        steady = time.monotonic() - child.started_at > STEADY_SECONDS
        deaths = self._deaths[child.name] = 1 if steady else self._deaths.get(child.name, 0) + 1
        print(f"  {child.name} ended (exit {child.exit_code}), starts again", flush=True)
        time.sleep(BACKOFF[min(deaths - 1, len(BACKOFF) - 1)])
        child.start()
        self._write_state()

    def _stop(self) -> None:
        """Ours first, in parallel, then the servers they lean on."""
        self._folder.clear_state()
        ours = [child for child in self._children if child.name == "api" or child.name.startswith("worker")]
        for child in ours:
            if child.alive and child.process is not None:
                child.process.send_signal(child.stop_signal)
        for child in [*ours, *(child for child in reversed(self._children) if child not in ours)]:
            with suppress(_Stopped):
                child.stop()
        if self._children:
            print("Stopped.", flush=True)


class _Stopped(BaseException):
    """A signal told us to stop; passes through everything."""


class _Changes:
    """Whether a source or prompt file changed since the last look."""

    def __init__(self) -> None:
        self._seen = self._stamp()

    def seen(self) -> bool:
        stamp = self._stamp()
        changed, self._seen = stamp != self._seen, stamp
        return changed

    @staticmethod
    def _stamp() -> tuple[int, int]:
        folders = ("agents", "graphs", "ingest", "prompts", "server", "storage", "tools")
        stamps = [
            path.stat().st_mtime_ns
            for folder in folders
            for path in (ROOT / folder).rglob("*")
            if path.suffix in _WATCHED
        ]
        return max(stamps), len(stamps)


_WATCHED = (".py", ".prompty", ".yaml", ".md", ".toml", ".js", ".css", ".html")
