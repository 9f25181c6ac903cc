"""Prompt files (``.prompty``) as the library prompty reads them, checked more strictly than it does.

A file that is wrong stops the start with file, line and reason; in a running process the last good version
stays in use. Customer text never goes through a template: it takes the place of the file's ``thread`` input
after rendering, as messages.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import prompty
import yaml
from jinja2 import TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

FRONT_MATTER_KEYS = frozenset(
    {"name", "displayName", "description", "metadata", "model", "inputs", "outputs", "template", "tools"}
)
_INCLUDE = re.compile(r"""\{%-?\s*include\s+["']([^"']+)["']\s*-?%\}""")
# Stands for the conversation while a template is rendered; what a customer wrote is put in its place
# afterwards.
_THREAD = "\x00thread\x00"


class PromptError(Exception):
    """A prompt file cannot be used. The text says file, line and reason."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(f"{path}:{line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


@dataclass(frozen=True)
class Rendered:
    """A rendered prompt: system texts before and after the place of the conversation."""

    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class PromptFile:
    """One checked prompt file; immutable, so that a running turn keeps the version that it began with.

    Attributes:
        name: path below the prompts folder without the ending, such as ``specialists/sales``.
        sha256: of the file and all that it includes; kept with each turn.
        metadata: the front matter's ``metadata``.
        inputs: declared input names, without the thread.
    """

    name: str
    path: Path
    sha256: str
    description: str
    metadata: Mapping[str, Any]
    inputs: frozenset[str]
    temperature: float
    max_tokens: int | None
    _agent: Any = field(repr=False, compare=False)
    _thread_input: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PromptFile) and (self.name, self.sha256) == (other.name, other.sha256)

    def __hash__(self) -> int:
        return hash((self.name, self.sha256))

    def render(self, **inputs: str) -> Rendered:
        """Fill in the declared inputs.

        Raises:
            PromptError: an input is missing or was not declared.
        """
        if set(inputs) != self.inputs:
            raise PromptError(
                self.path, 1, f"inputs given: {sorted(inputs)}; declared: {sorted(self.inputs)}"
            )
        return _render(self, tuple(sorted(inputs.items())))


@lru_cache(maxsize=512)
def _render(prompt: PromptFile, inputs: tuple[tuple[str, str], ...]) -> Rendered:
    values: dict[str, Any] = dict(inputs)
    if prompt._thread_input:
        values[prompt._thread_input] = [{"role": "user", "content": _THREAD}]
    before: list[str] = []
    after: list[str] = []
    seen = False
    for message in prompty.prepare(prompt._agent, values):
        text = "".join(part.value for part in message.parts)
        if text == _THREAD:
            seen = True
        else:
            (after if seen else before).append(text)
    return Rendered(tuple(before), tuple(after))


class PromptLibrary:
    """All prompt files below a folder, reloaded when they change.

    Raises:
        PromptError: a file is wrong at the first load.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._files: dict[str, PromptFile] = {}
        self.errors: dict[Path, PromptError] = {}
        self._load(strict=True)

    def refresh(self) -> bool:
        """Take up edited files; True where something changed. A bad file keeps its last good version and
        shows up in ``errors``.
        """
        return self._stamp() != self._stamps and self._load(strict=False)

    def get(self, name: str) -> PromptFile:
        """A prompt by name.

        Raises:
            KeyError: there is none of that name.
        """
        return self._files[name]

    def below(self, folder: str) -> Iterator[PromptFile]:
        """The prompts of one folder, by name."""
        return (self._files[name] for name in sorted(self._files) if name.startswith(f"{folder}/"))

    def _stamp(self) -> dict[Path, tuple[int, int]]:
        paths = [*self.root.rglob("*.prompty"), *self.root.rglob("*.md")]
        return {path: (stat.st_mtime_ns, stat.st_size) for path in paths if (stat := path.stat())}

    def _load(self, *, strict: bool) -> bool:
        stamps = self._stamp()
        files: dict[str, PromptFile] = {}
        self.errors = {}
        for path in sorted(path for path in stamps if path.suffix == ".prompty"):
            name = path.relative_to(self.root).with_suffix("").as_posix()
            try:
                files[name] = load_prompt(path, self.root)
            except PromptError as error:
                if strict:
                    raise
                self.errors[path] = error
                if name in self._files:
                    files[name] = self._files[name]
        changed = files != self._files or bool(self.errors)
        self._files, self._stamps = files, stamps
        return changed


def load_prompt(path: Path, root: Path) -> PromptFile:
    """Read and check one file.

    Raises:
        PromptError: front matter, template or an include is wrong.
    """
    source = path.read_text(encoding="utf-8")
    match = re.match(r"---\n(.*?\n)---\n(.*)", source, re.DOTALL)
    if match is None:
        raise PromptError(path, 1, "a prompt file begins with front matter between two lines of ---")
    front, body = match.groups()
    body_line = front.count("\n") + 3
    _check_front_matter(path, front)
    try:
        agent = prompty.load(str(path))
    except Exception as error:  # the library raises YAML, value and type errors of several packages
        raise PromptError(path, 2, f"prompty cannot read it: {error}") from error
    template = _expand(path, root, body, body_line)
    agent.instructions = template
    threads = [item.name for item in agent.inputs or () if item.kind == "thread"]
    declared = {item.name for item in agent.inputs or ()}
    _check_template(path, template, declared, body_line)
    if len(threads) > 1:
        raise PromptError(path, 2, f"at most one input of kind thread, found {threads}")
    options = agent.model.options if agent.model else None
    return PromptFile(
        name=path.relative_to(root).with_suffix("").as_posix(),
        path=path,
        sha256=hashlib.sha256((front + template).encode()).hexdigest(),
        description=agent.description or "",
        metadata={key: value for key, value in (agent.metadata or {}).items() if not key.startswith("__")},
        inputs=frozenset(declared - set(threads)),
        temperature=float(options.temperature) if options and options.temperature is not None else 0.0,
        max_tokens=options.max_output_tokens if options else None,
        _agent=agent,
        _thread_input=threads[0] if threads else None,
    )


def _check_front_matter(path: Path, front: str) -> None:
    try:
        node = yaml.compose(front, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else 2
        raise PromptError(path, line, f"not YAML: {error.problem}") from error
    if not isinstance(node, yaml.MappingNode):
        raise PromptError(path, 2, "front matter is a mapping of keys")
    for key, _ in node.value:
        if key.value not in FRONT_MATTER_KEYS:
            known = ", ".join(sorted(FRONT_MATTER_KEYS))
            raise PromptError(path, key.start_mark.line + 2, f"unknown key {key.value!r}; known are: {known}")


def _expand(path: Path, root: Path, body: str, first_line: int) -> str:
    """Put included files in their places. They are named from the prompts folder and cannot lie outside it."""

    def included(match: re.Match[str]) -> str:
        target = (root / match[1]).resolve()
        if not target.is_relative_to(root.resolve()) or not target.is_file():
            line = first_line + body[: match.start()].count("\n")
            raise PromptError(path, line, f"include {match[1]!r}: no such file below {root.name}/")
        return target.read_text(encoding="utf-8").strip()

    return _INCLUDE.sub(included, body)


def _check_template(path: Path, template: str, declared: set[str], first_line: int) -> None:
    try:
        parsed = ImmutableSandboxedEnvironment().parse(template)
    except TemplateSyntaxError as error:
        raise PromptError(path, first_line + error.lineno - 1, f"template: {error.message}") from error
    for name in sorted(meta.find_undeclared_variables(parsed) - declared):
        line = next((i for i, text in enumerate(template.splitlines()) if name in text), 0)
        raise PromptError(path, first_line + line, f"variable {name!r} is not declared under inputs")
