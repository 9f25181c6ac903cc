"""Runs the parser's child process and reads its answer, whatever the child does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import structlog

from ingest.parsers.child import request_line
from ingest.parsers.model import ERROR_CODES, IngestError, Kind, ParseLimits

_log = structlog.get_logger(__name__)

_ROOT = str(Path(__file__).resolve().parents[2])
# -I keeps the caller's folder and PYTHON* variables out; the one folder added back is the repository's.
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from ingest.parsers.child import main; main()"
_READ = 1 << 16
# A character is at most 4 bytes in UTF-8, and JSON doubles quotes and line feeds; the rest is for the title.
_BYTES_PER_CHARACTER = 4
_SPARE_BYTES = 1 << 20

_CRASHED = "The document needs too much memory or time to read. Export it as a new file, or split it."
_FAILED = "The document could not be read. Open it in its program and export it as a new file."


async def run_child(kind: Kind, data: bytes, filename: str, limits: ParseLimits) -> dict[str, Any]:
    """The child's answer for one document.

    Raises:
        IngestError: What the child said, or `parse_crashed` when it died, took too long or said too much.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-c",
        _PROGRAM,
        _ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limits.wall_seconds):
            raw = await _converse(process, request_line(kind, filename, limits) + data, limits)
            code = await process.wait()
    except TimeoutError as error:
        _log.warning("parser.crashed", exit_code="timeout")
        raise IngestError("parse_crashed", _CRASHED) from error
    finally:
        await _end(process)
    if code != 0 or raw is None:
        _log.warning("parser.crashed", exit_code=code)
        raise IngestError("parse_crashed", _CRASHED)
    return _checked(raw)


async def _converse(process: asyncio.subprocess.Process, request: bytes, limits: ParseLimits) -> bytes | None:
    """Writes and reads at once, since either pipe may fill. None when the child says more than it may."""
    assert process.stdin is not None
    assert process.stdout is not None
    writer = asyncio.create_task(_feed(process.stdin, request))
    try:
        answer = bytearray()
        cap = limits.max_chars * _BYTES_PER_CHARACTER + _SPARE_BYTES
        while part := await process.stdout.read(_READ):
            answer += part
            if len(answer) > cap:
                return None
        await writer
        return bytes(answer)
    finally:
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writer


async def _feed(stdin: asyncio.StreamWriter, request: bytes) -> None:
    # A child that dies while it is fed breaks the pipe; its exit code tells the story.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(request)
        await stdin.drain()
        stdin.close()
        await stdin.wait_closed()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Leaves neither a process nor an open pipe, also when the caller was cancelled."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    while await process.stdout.read(_READ):
        pass
    await process.wait()


def _checked(raw: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(raw)
    except ValueError as error:
        raise IngestError("parse_crashed", _CRASHED) from error
    code = answer.get("error")
    if code is None:
        return answer
    if cause := answer.get("cause"):
        _log.warning("parser.failed", code=code, cause=cause)
    if code not in ERROR_CODES:
        raise IngestError("parse_failed", _FAILED)
    raise IngestError(code, answer.get("message") or (_CRASHED if code == "parse_crashed" else _FAILED))
