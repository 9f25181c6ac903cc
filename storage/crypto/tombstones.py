"""Destroyed keys, remembered outside the database: a restored backup brings them back, and they are destroyed again.

A line of JSON each: ``{"tenant": "<uuid>", "keys": ["<uuid>", …], "at": "<ISO 8601>"}``. The file holds ids and nothing
else, and belongs on another disk than the database's backups.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

FILE_NAME = "destroyed-keys.jsonl"


@dataclass(frozen=True)
class Tombstone:
    """Keys of a tenant that were destroyed at one time."""

    tenant_id: UUID
    key_ids: tuple[UUID, ...]
    at: datetime

    def line(self) -> str:
        entry = {
            "tenant": str(self.tenant_id),
            "keys": [str(key_id) for key_id in self.key_ids],
            "at": self.at.isoformat(),
        }
        return json.dumps(entry) + "\n"


def append_tombstone(path: Path, tenant_id: UUID, key_ids: Sequence[UUID], at: datetime) -> None:
    """Add a line, on the disk when this returns; safe from several processes.

    Call it before the transaction commits: a tombstone too many costs a key that was to be destroyed anyway, one too
    few would let a restored backup bring a person back. It waits for the disk, so call it in a thread.
    """
    if not key_ids:
        return
    line = Tombstone(tenant_id, tuple(key_ids), at).line().encode()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        # A process that died in the middle left half a line; ours must not continue it.
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        file.write(b"\n" + line if torn else line)
        os.fsync(descriptor)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_tombstones(lines: Iterable[str]) -> tuple[list[Tombstone], list[int]]:
    """The tombstones, and the numbers (from 1) of lines that are none. Such a line was written by a process that died
    before its erasure committed, or the file is damaged; a person should look.
    """
    found: list[Tombstone] = []
    unreadable: list[int] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            key_ids = tuple(UUID(key_id) for key_id in entry["keys"])
            found.append(Tombstone(UUID(entry["tenant"]), key_ids, datetime.fromisoformat(entry["at"])))
        except (ValueError, KeyError, TypeError, AttributeError):
            unreadable.append(number)
    return found, unreadable
