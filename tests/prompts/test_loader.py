"""Prompt files: what is refused at the start, and what a running process does with a bad edit."""

import os
import shutil
from pathlib import Path

import pytest

from agents.catalog import Catalog
from prompts.loader import PromptError, PromptLibrary, load_prompt
from server.settings import PROMPTS
from tools.sdk.registry import load_registry

GOOD = """---
name: tiny
description: A prompt.
inputs:
  tenant_name: {kind: string, required: true}
  history: {kind: thread}
template: {format: {kind: jinja2}, parser: {kind: prompty}}
---
system:
You answer for {{ tenant_name }}.

{{ history }}
"""
TOOLS = frozenset(load_registry().tools)


def written(root: Path, text: str, name: str = "tiny.prompty") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("change", "line", "reason"),
    [
        (("name: tiny", "name: tiny\nmodle: x"), 3, "unknown key 'modle'; known are:"),
        (("inputs:", "inputs: [[}"), 4, "not YAML: "),
        (("{{ tenant_name }}", "{{ tenant }}"), 10, "variable 'tenant' is not declared under inputs"),
        (("{{ tenant_name }}", "{{ tenant_name"), 12, "template: "),
        (
            ("{{ tenant_name }}", '{% include "../secret.md" %}'),
            10,
            "include '../secret.md': no such file below",
        ),
        (("---\nname", "name"), 1, "a prompt file begins with front matter"),
    ],
)
def test_a_wrong_file_is_named_with_line_and_reason(
    tmp_path: Path, change: tuple[str, str], line: int, reason: str
) -> None:
    path = written(tmp_path, GOOD.replace(*change, 1))
    with pytest.raises(PromptError) as caught:
        load_prompt(path, tmp_path)
    assert (caught.value.path, caught.value.line) == (path, line)
    assert caught.value.reason.startswith(reason)
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_the_conversation_has_its_place_and_no_text_passes_the_template(tmp_path: Path) -> None:
    rendered = load_prompt(written(tmp_path, GOOD + "\nsystem:\nBe brief.\n"), tmp_path).render(
        tenant_name="Acme"
    )
    assert rendered.before == ("You answer for Acme.",)
    assert rendered.after == ("Be brief.",)


def test_inputs_must_be_those_that_are_declared(tmp_path: Path) -> None:
    prompt = load_prompt(written(tmp_path, GOOD), tmp_path)
    with pytest.raises(PromptError, match=r"inputs given: \['name'\]; declared: \['tenant_name'\]"):
        prompt.render(name="Acme")


def test_an_include_counts_in_the_hash(tmp_path: Path) -> None:
    written(tmp_path, "Be kind.", "shared/tone.md")
    path = written(tmp_path, GOOD.replace("You answer", '{% include "shared/tone.md" %} You answer'))
    before = load_prompt(path, tmp_path)
    assert before.render(tenant_name="Acme").before == ("Be kind. You answer for Acme.",)
    written(tmp_path, "Be brief.", "shared/tone.md")
    assert load_prompt(path, tmp_path).sha256 != before.sha256


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The product's prompts, free to be edited."""
    return Path(shutil.copytree(PROMPTS, tmp_path / "prompts"))


def edited(path: Path, old: str, new: str) -> None:
    """Save a file as an editor does, with a newer time."""
    stamp = path.stat().st_mtime_ns + 10_000_000
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, ns=(stamp, stamp))


def test_a_fifth_specialist_is_a_file(copied: Path) -> None:
    catalog = Catalog(PromptLibrary(copied), TOOLS)
    assert set(catalog.snapshot().agents) == {"sales", "support", "billing", "operations"}
    fifth = (copied / "specialists" / "support.prompty").read_text().replace("title: Support", "title: Press")
    (copied / "specialists" / "press.prompty").write_text(fifth)
    assert catalog.snapshot().agents["press"].title == "Press"


def test_an_unknown_tool_stops_the_start(copied: Path) -> None:
    path = copied / "specialists" / "sales.prompty"
    edited(path, "crm_create_lead, ", "crm_creat_lead, ")
    with pytest.raises(PromptError) as caught:
        Catalog(PromptLibrary(copied), TOOLS)
    assert caught.value.path == path
    assert "crm_creat_lead" in path.read_text().splitlines()[caught.value.line - 1]
    assert caught.value.reason.startswith(
        "metadata.agent.tools: no loaded domain has a tool 'crm_creat_lead'"
    )


@pytest.mark.parametrize(
    "mistake", [("tier: standard", "teir: standard"), ("{{ today }}", "{{ yesterday }}")]
)
def test_a_bad_edit_leaves_the_last_good_version_in_use(copied: Path, mistake: tuple[str, str]) -> None:
    catalog = Catalog(PromptLibrary(copied), TOOLS)
    before = catalog.snapshot()
    path = copied / ("specialists/sales.prompty" if "tier" in mistake[0] else "shared/rules.md")
    edited(path, *mistake)
    assert catalog.snapshot().agents["sales"].prompt.sha256 == before.agents["sales"].prompt.sha256
    edited(path, *reversed(mistake))
    edited(path, "You are the sales specialist", "You are the best sales specialist")
    after = catalog.snapshot().agents["sales"].prompt
    assert (after.sha256 != before.agents["sales"].prompt.sha256) is ("tier" in mistake[0])
