"""The list of destroyed keys outside the database."""

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from storage.crypto.tombstones import Tombstone, append_tombstone, read_tombstones

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TENANT, KEYS = UUID(int=1), (UUID(int=2), UUID(int=3))


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "destroyed-keys.jsonl"
    append_tombstone(path, TENANT, KEYS, NOON)
    append_tombstone(path, TENANT, [], NOON)
    append_tombstone(path, TENANT, KEYS[:1], NOON)
    lines = path.read_text().splitlines()
    assert json.loads(lines[0]) == {
        "tenant": str(TENANT),
        "keys": [str(key) for key in KEYS],
        "at": "2026-03-01T12:00:00+00:00",
    }
    assert read_tombstones(lines) == ([Tombstone(TENANT, KEYS, NOON), Tombstone(TENANT, KEYS[:1], NOON)], [])
    assert path.stat().st_mode & 0o777 == 0o600


def test_half_a_line_is_reported_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "destroyed-keys.jsonl"
    append_tombstone(path, TENANT, KEYS, NOON)
    with path.open("a") as file:
        file.write('{"tenant": "0000')
    append_tombstone(path, TENANT, KEYS, NOON)
    found, unreadable = read_tombstones(path.read_text().splitlines())
    assert (found, unreadable) == ([Tombstone(TENANT, KEYS, NOON)] * 2, [2])


def test_what_is_no_tombstone_is_named_by_its_line() -> None:
    lines = ["[]", "", "null", '{"tenant": 1}', '{"tenant": "x", "keys": [], "at": ""}', "7"]
    assert read_tombstones(lines) == ([], [1, 3, 4, 5, 6])
