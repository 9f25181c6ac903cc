"""The example sentences and reply templates of the offline model, as prompt engineers edit them."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from agents.offline_relevance import FIGURES
from prompts.loader import PromptError

REPLY_FIELDS: dict[str, frozenset[str]] = {
    "answer": frozenset({"text", "citation"}),
    "other_language": frozenset({"answer"}),
    "handoff": frozenset(),
    "handoff_reason": frozenset({"question"}),
    "lead_created": frozenset(),
    "note_added": frozenset(),
    "contact_found": frozenset(),
    "contact_missing": frozenset(),
    "done": frozenset(),
    "failed": frozenset({"error"}),
    "ask_missing": frozenset({"fields"}),
    "fields_and": frozenset({"first", "last"}),
    "reduced": frozenset(),
    "greeting": frozenset(),
    "thanks": frozenset(),
}
SMALLTALK = ("greeting", "thanks", "person")
FALLBACK = "en"

ByLanguage = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class ExampleLibrary:
    """What the prompts folder gives the offline model.

    Attributes:
        routes: specialist -> language -> messages for it.
        calls: a tool's function name, `<domain>_<tool>` -> language -> messages on which to call it.
        smalltalk: "greeting", "thanks" and "person" (somebody wants one) -> language -> messages.
        replies: template's name -> language -> text; the names and their braces are `REPLY_FIELDS`.
        fields: a tool's argument -> language -> how to ask the customer for it.
        asks: kind of figure -> language -> words that ask for one; the kinds are those of `FIGURES`.
    """

    routes: Mapping[str, ByLanguage]
    calls: Mapping[str, ByLanguage]
    smalltalk: Mapping[str, ByLanguage]
    replies: Mapping[str, Mapping[str, str]]
    fields: Mapping[str, Mapping[str, str]]
    asks: Mapping[str, ByLanguage]

    @classmethod
    def load(cls, root: Path) -> "ExampleLibrary":
        """Read and check the files below the prompts folder `root`.

        Raises:
            PromptError: a file is missing or wrong; it names file, line and reason.
        """
        routes = {
            path.name.split(".")[0]: _examples(path, "route")
            for path in sorted((root / "specialists").glob("*.examples.yaml"))
        }
        if not routes:
            raise PromptError(root / "specialists", 1, "holds no *.examples.yaml")
        calls = {
            f"{path.parent.name}_{path.name.split('.')[0]}": _examples(path, "call")
            for path in sorted((root / "tools").glob("*/*.examples.yaml"))
        }
        path = root / "shared" / "offline.yaml"
        document = _Document(path)
        parts = document.mapping(document.root, {"replies", "smalltalk", "fields", "asks"})
        smalltalk_nodes = document.mapping(parts["smalltalk"], set(SMALLTALK))
        smalltalk = {name: document.lists(node) for name, node in smalltalk_nodes.items()}
        replies = document.mapping(parts["replies"], set(REPLY_FIELDS))
        templates = {name: document.templates(node, REPLY_FIELDS[name]) for name, node in replies.items()}
        fields = {
            name: document.templates(node, frozenset())
            for name, node in document.mapping(parts["fields"]).items()
        }
        asks = {
            kind: document.lists(node) for kind, node in document.mapping(parts["asks"], set(FIGURES)).items()
        }
        return cls(routes, calls, smalltalk, templates, fields, asks)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that every reply is written in."""
        shared = set.intersection(*(set(by_language) for by_language in self.replies.values()))
        return tuple(sorted(shared))

    def reply(self, name: str, language: str, **values: str) -> str:
        """Fill in a template; in English where it does not exist in `language`."""
        by_language = self.replies[name]
        return by_language.get(language, by_language[FALLBACK]).format(**values)

    def cues(self, language: str) -> dict[str, tuple[str, ...]]:
        """Kind of figure -> the words of a language that ask for one."""
        return {kind: by_language.get(language, ()) for kind, by_language in self.asks.items()}

    def field(self, name: str, language: str) -> str:
        """How to ask for a tool's argument; its bare name in words where nobody has written it."""
        by_language = self.fields.get(name, {})
        return by_language.get(language) or by_language.get(FALLBACK) or name.replace("_", " ")


def _examples(path: Path, key: str) -> ByLanguage:
    document = _Document(path)
    return document.lists(document.mapping(document.root, {key})[key])


class _Document:
    """A YAML file read as nodes, because only they know the line an error is on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as error:
            raise PromptError(path, 1, f"cannot be read: {error.strerror}") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise PromptError(path, line, str(error.problem)) from None
        if node is None:
            raise PromptError(path, 1, "is empty")
        self.root: yaml.Node = node

    def fail(self, node: yaml.Node, reason: str) -> PromptError:
        return PromptError(self.path, node.start_mark.line + 1, reason)

    def mapping(self, node: yaml.Node, keys: set[str] | None = None) -> dict[str, yaml.Node]:
        """The entries of a mapping, whose keys must be exactly `keys` where those are given."""
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(node, "expected a mapping")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = self.text(key)
            if name in found:
                raise self.fail(key, f"{name!r} stands here twice")
            if keys is not None and name not in keys:
                raise self.fail(key, f"unknown key {name!r}; known: {', '.join(sorted(keys))}")
            found[name] = value
        if keys is not None and (missing := keys - found.keys()):
            raise self.fail(node, f"missing: {', '.join(sorted(missing))}")
        return found

    def text(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or not str(node.value).strip():
            raise self.fail(node, "expected a text")
        return str(node.value)

    def lists(self, node: yaml.Node) -> dict[str, tuple[str, ...]]:
        """Language -> sentences."""
        found = {}
        for language, listed in self.mapping(node).items():
            if not isinstance(listed, yaml.SequenceNode) or not listed.value:
                raise self.fail(listed, f"expected a list of sentences for {language!r}")
            found[language] = tuple(self.text(item) for item in listed.value)
        if FALLBACK not in found:
            raise self.fail(node, f"there are no sentences for {FALLBACK!r}")
        return found

    def templates(self, node: yaml.Node, wanted: frozenset[str]) -> dict[str, str]:
        """Language -> template that holds exactly the `wanted` names in braces."""
        found = {}
        for language, value in self.mapping(node).items():
            text = self.text(value)
            try:
                names = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
            except ValueError as error:
                raise self.fail(value, f"{error}") from None
            if names != wanted:
                raise self.fail(value, f"must hold {_braces(wanted)}, holds {_braces(names)}")
            found[language] = text
        if FALLBACK not in found:
            raise self.fail(node, f"there is no text for {FALLBACK!r}")
        return found


def _braces(names: set[str] | frozenset[str]) -> str:
    return " ".join(f"{{{name}}}" for name in sorted(names)) or "nothing in braces"
