"""OWASP ASVS 5.0.0, levels 1 and 2: what asvs.yaml says is proved must be there, and enough of it.

Whether the proofs hold is the proofs' own business: they are tests of this suite. Here nothing runs; functions and headings are looked up.
"""

import ast
import hashlib
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SAID: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("asvs.yaml").read_text(encoding="utf-8"))
LEVELS = {1: 70, 2: 183}
# Of the sorted ids, a line each, as the standard's own table has them: an id that is lost, invented or mistyped shows here.
IDS_SHA256 = "86cf170f2d735bbea6709489730fedbcd1b6a5611b6b13040d534dd93346e2eb"  # pragma: allowlist secret
KINDS = {"tests", "document", "gap", "applies"}
MOST_OPEN = 0.2


@cache
def functions_of(path: str) -> frozenset[str]:
    """Test functions of a file, those of classes as ``Class::name``."""
    found = set()
    for part in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(part.name)
        elif isinstance(part, ast.ClassDef):
            methods = (one for one in part.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{part.name}::{one.name}" for one in methods}
    return frozenset(found)


@cache
def headings_of(path: str) -> frozenset[str]:
    text = (ROOT / path).read_text(encoding="utf-8")
    return frozenset(re.findall(r"^#+ (.+?)\s*$", text, re.MULTILINE))


def missing_from(entry: dict[str, Any]) -> list[str]:
    """What the entry names and nobody finds."""
    lost = []
    for node in entry.get("tests", ()):
        path, _, name = node.partition("::")
        if not (ROOT / path).is_file() or name not in functions_of(path):
            lost.append(node)
    if "document" in entry:
        path, _, heading = entry["document"].partition("#")
        if not (ROOT / path).is_file() or heading not in headings_of(path):
            lost.append(entry["document"])
    return lost


def test_every_requirement_is_here_once() -> None:
    ids = [entry["id"] for entry in SAID]
    assert len(ids) == len(set(ids))
    assert {level: sum(entry["level"] == level for entry in SAID) for level in LEVELS} == LEVELS
    assert hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest() == IDS_SHA256


@pytest.mark.parametrize("entry", SAID, ids=lambda entry: str(entry["id"]))
def test_what_an_entry_names_exists(entry: dict[str, Any]) -> None:
    assert re.fullmatch(r"V\d{1,2}\.\d{1,2}\.\d{1,2}", entry["id"])
    assert entry["topic"]
    said = KINDS & set(entry)
    if entry.get("applies") is False:
        assert (said, len(entry["reason"]) > 15) == ({"applies"}, True)
    else:
        assert said in ({"tests"}, {"document"}, {"tests", "document"}, {"gap"}), "say one of them"
        assert set(entry) <= {"id", "level", "topic", *said}
    if "tests" in entry:
        assert entry["tests"]
        assert len(entry["tests"]) == len(set(entry["tests"]))
    if "gap" in entry:
        assert entry["gap"].endswith(".")
    assert missing_from(entry) == []


def test_what_is_gone_is_found() -> None:
    """The look-up above finds something wrong where something is."""
    here = "tests/security/test_asvs.py"
    assert missing_from({"tests": [f"{here}::test_what_is_gone_is_found"]}) == []
    for node in (f"{here}::test_that_never_was", "tests/security/test_gone.py::test_x", here):
        assert missing_from({"tests": [node]}) == [node]
    assert missing_from({"document": "README.md#AI Secretary"}) == []
    for place in ("README.md#No such heading", "tests/security/NONE.md#Input"):
        assert missing_from({"document": place}) == [place]


def test_enough_is_proved(capsys: pytest.CaptureFixture[str]) -> None:
    """All of level 1 that applies, and four fifths of both levels."""
    lines = []
    open_ids: dict[int, list[str]] = {}
    applicable = 0
    for level in LEVELS:
        entries = [entry for entry in SAID if entry["level"] == level and "applies" not in entry]
        tested = sum("tests" in entry for entry in entries)
        documented = sum("document" in entry and "tests" not in entry for entry in entries)
        open_ids[level] = [entry["id"] for entry in entries if "gap" in entry]
        applicable += len(entries)
        lines.append(
            f"level {level}: {len(entries)} of {LEVELS[level]} apply, {tested} proved by tests, {documented} documented, "
            f"{len(open_ids[level])} open"
        )
    with capsys.disabled():
        sys.stdout.write("\nASVS 5.0 " + "; ".join(lines) + "\n")
    assert open_ids[1] == []
    assert sum(len(ids) for ids in open_ids.values()) <= MOST_OPEN * applicable
