"""Makes `.venv` and installs the locked packages. Runs on a bare Python 3.11, any number of times, two at a
time.

    python3.11 bootstrap.py [--dev | --semgrep]

semgrep wants other versions of what we use, so it lives in an environment of its own.

Nothing is done where the lock file that is installed is the one that is wanted.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SEMGREP = "--semgrep" in sys.argv[1:]
VENV = ROOT / (".venv-semgrep" if SEMGREP else ".venv")
PYTHON = VENV / "bin" / "python"


def main() -> int:
    """Install; returns the exit code."""
    if sys.version_info[:2] not in ((3, 11), (3, 12)):
        print(
            f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}. Try: make PYTHON=python3.11 …",
            file=sys.stderr,
        )
        return 1
    dev = "--dev" in sys.argv[1:]
    lock = ROOT / f"requirements{'-semgrep' if SEMGREP else '-dev' if dev else ''}.lock"
    # Two `make` at once share .venv: the second waits here, and then finds everything done.
    with (ROOT / ".venv.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        wanted = _digest(lock)
        stamp = VENV / ".installed"
        installed = stamp.read_text().split() if stamp.exists() and PYTHON.exists() else []
        # The development set contains the other: it serves both.
        if wanted in installed:
            return 0
        print(f"Installing {lock.name} into {VENV.name} (a minute or two) …", flush=True)
        stamp.unlink(missing_ok=True)
        if not _works():
            venv.create(VENV, with_pip=True, clear=True)
        if SEMGREP:  # its lock has no installer: the other environment has one
            installer = str(ROOT / ".venv" / "bin" / "uv")
            _run(
                [installer, "pip", "sync", "--quiet", "--python", str(PYTHON), "--require-hashes", str(lock)]
            )
            stamp.write_text(f"{wanted}\n")
            return 0
        # uv installs ten times as fast as pip; its own version and hash are in the lock like any other's.
        _run(
            [
                str(PYTHON),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--require-hashes",
                "-r",
                str(_only_uv(lock)),
            ]
        )
        uv = [str(VENV / "bin" / "uv"), "pip", "sync", "--quiet", "--python", str(PYTHON)]
        _run([*uv, "--require-hashes", "--compile-bytecode", str(lock)])
        digests = [wanted, _digest(ROOT / "requirements.lock")] if dev else [wanted]
        stamp.write_text("\n".join(digests) + "\n")
    return 0


def _works() -> bool:
    return (
        PYTHON.exists()
        and subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True, check=False).returncode
        == 0
    )


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def _only_uv(lock: Path) -> Path:
    """The lock's entry of uv as a requirements file."""
    lines = lock.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("uv=="))
    end = next(
        (number for number in range(start + 1, len(lines)) if not lines[number].startswith(" ")), len(lines)
    )
    only = VENV / "uv.lock"
    only.write_text("\n".join(lines[start:end]) + "\n")
    return only


def _run(command: list[str]) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    code = subprocess.run(command, env=environment, check=False).returncode
    if code != 0:
        print(
            f"error: {' '.join(command[:4])} … failed (exit {code}). Is the package index reachable?",
            file=sys.stderr,
        )
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
