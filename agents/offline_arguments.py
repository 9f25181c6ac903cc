"""Arguments of a tool call, read from a customer's sentence by the tool's JSON schema, without a model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from dateparser.search import search_dates

PLACEHOLDER = re.compile(r"⟦([A-Z_]+)_[0-9]+⟧")
NAMED = re.compile(
    r"(?:\bmy name is|\bi am called|\bthis is|\bmein name ist|\bmein name lautet|\bich hei(?:ß|ss)e)\s+"
    r"((?-i:[^\W\d_a-zß-ÿ][\w'-]+)(?:\s+(?-i:[^\W\d_a-zß-ÿ][\w'-]+)){0,2})",
    re.IGNORECASE,
)
NUMBER = re.compile(r"(?<![\w.,-])\d+(?:[.,]\d+)?(?![\w-])")
SENTENCE_FIELDS = (
    "summary",
    "subject",
    "topic",
    "text",
    "note",
    "message",
    "description",
    "interest",
    "query",
)
# Kinds of x-pii by which somebody is reached; and the mark of free text that may hold any kind.
REACHABLE = frozenset({"EMAIL", "PHONE"})
FREE_TEXT = "TEXT"
CONTACT = "contact"
DATE_LANGUAGES = ("de", "en", "fr", "it", "es")


@dataclass(frozen=True)
class Arguments:
    """What was read, and the names of the required arguments that the text does not tell."""

    values: dict[str, Any]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Utterance:
    """What the arguments are read from.

    Attributes:
        text: the customer's words; personal data only as placeholders.
        earlier: the customer's earlier messages, newest first; placeholders alone are taken from them.
        today: what "tomorrow" is counted from; without it no date is read.
        language: BCP 47 primary subtag.
    """

    text: str
    earlier: Sequence[str]
    today: date | None
    language: str


def read_arguments(schema: Mapping[str, Any], said: Utterance) -> Arguments:
    """Read what `schema` (a JSON schema of type object) asks for.

    A property with `x-pii` takes the customer's placeholder of that kind, a date is looked for in the text, a
    free text such as `summary` takes the sentence itself, an enum what is mentioned. Nothing is made up.
    """
    values: dict[str, Any] = {}
    declarations = {name: _resolve(part, schema) for name, part in schema.get("properties", {}).items()}
    for name, declared in declarations.items():
        value = _read(name, declared, said)
        if value is not None:
            values[name] = value
    missing = tuple(name for name in schema.get("required", ()) if name not in values)
    # either address will do, so a schema requires neither; without both nobody can be reached or found
    reachable = {name for name, declared in declarations.items() if declared.get("x-pii") in REACHABLE}
    if reachable and not reachable & values.keys() and not reachable & set(missing):
        missing += (CONTACT,)
    return Arguments(values, missing)


def is_reachable(text: str, earlier: Sequence[str]) -> bool:
    """Whether the customer has said in this conversation how to be reached."""
    return any(match[1] in REACHABLE for each in (text, *earlier) for match in PLACEHOLDER.finditer(each))


def _resolve(declared: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """Follow a local reference, and take the part of `X | None` that is not null."""
    found = dict(declared)
    if reference := found.pop("$ref", None):
        target: Any = root
        for key in str(reference).removeprefix("#/").split("/"):
            target = target.get(key, {})
        found = {**target, **found}
    for option in found.pop("anyOf", ()):
        if option.get("type") != "null":
            return {**_resolve(option, root), **found}
    return found


def _read(name: str, declared: Mapping[str, Any], said: Utterance) -> Any:
    kind = declared.get("x-pii")
    if kind is not None and kind != FREE_TEXT:
        return _personal(str(kind), said)
    if "enum" in declared:
        return _mentioned(declared["enum"], said.text)
    kinds = declared.get("type")
    shape = kinds if isinstance(kinds, str) else next((k for k in kinds or () if k != "null"), None)
    if shape == "string" and declared.get("format") == "date":
        return _date(said)
    if shape == "string" and "format" not in declared and "pattern" not in declared and _is_free_text(name):
        return _cut(said.text.strip(), declared.get("maxLength"))
    if shape in {"integer", "number"}:
        return _number(said.text, shape)
    return None


def _personal(kind: str, said: Utterance) -> str | None:
    for text in (said.text, *said.earlier):
        for match in PLACEHOLDER.finditer(text):
            if match[1] == kind:
                return match[0]
        # names are not masked everywhere, and what a customer says after "my name is" is meant to be used
        if kind == "PERSON" and (named := NAMED.search(text)):
            return named[1]
    return None


def _is_free_text(name: str) -> bool:
    return any(part in SENTENCE_FIELDS for part in name.casefold().split("_"))


def _mentioned(options: Sequence[Any], text: str) -> Any:
    for option in options:
        words = str(option).replace("_", " ")
        if isinstance(option, str) and re.search(rf"\b{re.escape(words)}\b", text, re.IGNORECASE):
            return option
    return None


def _number(text: str, kind: str) -> int | float | None:
    found = NUMBER.findall(text)
    # with two numbers in a sentence there is no telling which one is meant
    if len(found) != 1:
        return None
    value = float(found[0].replace(",", "."))
    if kind == "number":
        return value
    return int(value) if value.is_integer() else None


def _date(said: Utterance) -> str | None:
    if said.today is None:
        return None
    languages = [said.language] if said.language in DATE_LANGUAGES else list(DATE_LANGUAGES)
    base = datetime(said.today.year, said.today.month, said.today.day)  # noqa: DTZ001  # no zone
    settings = {"RELATIVE_BASE": base, "PREFER_DATES_FROM": "future"}
    found = search_dates(PLACEHOLDER.sub(" ", said.text), languages=languages, settings=settings) or []
    for words, moment in found:
        # "so", "an" or a bare amount pass for dates in some language
        if len(words) >= 4 and any(char.isalpha() or char in ".-/" for char in words):
            return moment.date().isoformat()
    return None


def _cut(text: str, limit: int | None) -> str:
    if limit is None or len(text) <= limit:
        return text
    return text[: limit - 1].rsplit(maxsplit=1)[0] + "…"
