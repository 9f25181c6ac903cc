"""The kit for tool domains: what does not get in, and what stands between a tool and the model."""

import re
from pathlib import Path
from typing import Annotated, Any

import pytest

from tools.crm.plugin import plugin as crm
from tools.sdk.context import ToolContext
from tools.sdk.errors import PluginError
from tools.sdk.fields import PII, PLAIN, ToolArgs, ToolOut, masked, restored
from tools.sdk.manifest import read_manifest
from tools.sdk.plugin import ToolPlugin
from tools.sdk.registry import Registry, load_registry

MANIFEST = """
domain = "weather"
version = "1"
title = "Weather"
[tools.look]
risk = "read"
scope = "weather:read"
"""


class LookArgs(ToolArgs):
    place: Annotated[str, PLAIN]


class LookOut(ToolOut):
    sky: Annotated[str, PLAIN]


async def look(context: ToolContext, args: LookArgs) -> LookOut:
    """Look at the sky."""
    return LookOut(sky=f"blue over {args.place}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "manifest.toml").write_text(MANIFEST)
    return tmp_path


def test_a_domain_is_loaded(folder: Path) -> None:
    (tool,) = ToolPlugin(folder, (look,)).tools
    assert tool.name == "weather_look"
    assert tool.openai_spec == {
        "type": "function",
        "function": {
            "name": "weather_look",
            "description": "Look at the sky.",
            "parameters": {
                "type": "object",
                "properties": {"place": {"title": "Place", "type": "string"}},
                "required": ["place"],
                "additionalProperties": False,
            },
        },
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            ('risk = "read"', 'risk = "reed"'),
            "tools.look.risk: Input should be 'read', 'write', 'external' or 'money'",
        ),
        (('scope = "weather:read"', 'scope = "weather"'), "tools.look.scope: String should match pattern"),
        (('title = "Weather"', 'title = "Weather'), "Illegal character"),
        (
            ('title = "Weather"', 'title = "Weather"\ncolour = "blue"'),
            "colour: Extra inputs are not permitted",
        ),
    ],
)
def test_a_wrong_manifest_is_named_with_its_reason(
    folder: Path, change: tuple[str, str], reason: str
) -> None:
    path = folder / "manifest.toml"
    path.write_text(MANIFEST.replace(*change))
    with pytest.raises(PluginError, match=re.escape(str(path)) + ".*" + re.escape(reason)):
        read_manifest(path)


def test_a_tool_that_the_manifest_does_not_list_is_refused(folder: Path) -> None:
    with pytest.raises(PluginError, match=r"lists the tools \['look'\], the code registers \[\]"):
        ToolPlugin(folder, ())


def test_a_domain_cannot_be_taken_twice_or_stand_in_for_a_plugin() -> None:
    with pytest.raises(PluginError, match="the domain 'crm' is taken"):
        Registry([crm, crm])
    with pytest.raises(PluginError, match="is not a ToolPlugin"):
        Registry([object()])  # type: ignore[list-item]  # what a third party's entry point may hand us


def test_an_enabled_plugin_must_be_installed() -> None:
    with pytest.raises(PluginError, match="TOOLS_ENABLED names 'moon', but no installed package offers it"):
        load_registry(frozenset({"moon"}))


def test_a_text_field_without_a_mark_does_not_come_into_being() -> None:
    with pytest.raises(TypeError, match=r"Careless\.name: mark it PII\(kind\) or PLAIN"):

        class Careless(ToolOut):
            name: str | None = None


class Person(ToolOut):
    name: Annotated[str | None, PII("PERSON")]
    motto: Annotated[str, PLAIN]
    notes: Annotated[str, PII("TEXT")]
    age: int


class People(ToolOut):
    people: list[Person]


class FakePrivacy:
    """Shows what was asked of it."""

    def token(self, kind: str, value: str) -> str:
        return f"<{kind}:{len(value)}>"

    def mask(self, text: str) -> str:
        return f"<masked:{len(text)}>"

    def known(self, text: str) -> str:
        return text.replace("Anna", "<known>")

    def restore(self, text: str) -> str:
        return text.replace("⟦EMAIL_1⟧", "a@b.example")


def test_results_are_masked_field_by_field() -> None:
    people = People(people=[Person(name="Anna", motto="Anna first", notes="call Anna", age=7)])
    assert masked(people, FakePrivacy()) == {
        "people": [{"name": "<PERSON:4>", "motto": "<known> first", "notes": "<masked:9>", "age": 7}]
    }


class MailArgs(ToolArgs):
    to: Annotated[str, PII("EMAIL")]
    subject: Annotated[str, PLAIN]


def test_only_arguments_that_declare_the_need_get_values() -> None:
    given: dict[str, Any] = {"to": "⟦EMAIL_1⟧", "subject": "for ⟦EMAIL_1⟧", "unknown": "⟦EMAIL_1⟧"}
    assert restored(MailArgs, given, FakePrivacy()) == {
        "to": "a@b.example",
        "subject": "for ⟦EMAIL_1⟧",
        "unknown": "⟦EMAIL_1⟧",
    }
