"""A specialist is data: a prompt file with front matter. A fifth one needs a file and no Python."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prompts.loader import PromptError, PromptFile


class _FrontMatter(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: str
    routing: str = Field(min_length=10)
    tools: list[str]
    tier: str = Field(default="standard", pattern="^(fast|standard)$")


@dataclass(frozen=True)
class AgentSpec:
    """A specialist as its prompt file describes it.

    Attributes:
        name: the file's name; what the router answers with.
        routing: what the router should know about it.
        tools: function names that it may call.
        tier: which of the configured models thinks for it.
    """

    name: str
    title: str
    routing: str
    tools: tuple[str, ...]
    tier: str
    prompt: PromptFile


def spec_of(prompt: PromptFile, known_tools: frozenset[str]) -> AgentSpec:
    """Read the specialist out of its prompt file.

    Raises:
        PromptError: ``metadata.agent`` is missing or wrong, or names a tool that no loaded domain has.
    """
    try:
        front = _FrontMatter.model_validate(prompt.metadata.get("agent"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("metadata", "agent", *first["loc"])))
        raise PromptError(
            prompt.path,
            line_of(prompt, str(first["loc"][0]) if first["loc"] else "agent"),
            f"{where}: {first['msg']}",
        ) from error
    for tool in front.tools:
        if tool not in known_tools:
            reason = f"metadata.agent.tools: no loaded domain has a tool {tool!r}; there are: {', '.join(sorted(known_tools))}"
            raise PromptError(prompt.path, line_of(prompt, tool), reason)
    return AgentSpec(
        prompt.name.rpartition("/")[2], front.title, front.routing, tuple(front.tools), front.tier, prompt
    )


def line_of(prompt: PromptFile, word: str) -> int:
    """The first line of the file that holds a word, for error messages."""
    lines = prompt.path.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines, start=1) if word in line), 1)
