"""What a tool takes and returns, and which of its fields are personal data.

Each text field says what it is: ``Annotated[str, PII("EMAIL")]`` or ``Annotated[str, PLAIN]``. In arguments a
mark means that the placeholder, which is all the model has, is replaced by the value; in results, that the
value is replaced by a placeholder before the model sees it. A forgotten mark would be a leak, so a class
without one does not come into being.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, get_args

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class PII:
    """A field's kind of personal data: EMAIL, PHONE, PERSON, …; TEXT is free text that may contain any; None
    is none.
    """

    kind: str | None

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The kind is in the tool's schema as ``x-pii``: the offline model chooses the placeholder by it."""
        result = handler(schema)
        if self.kind is not None:
            result["x-pii"] = self.kind
        return result


PLAIN = PII(None)


class Privacy(Protocol):
    """What stands between the tools and the model; implemented by agents.toolbox over the thread's vault."""

    def token(self, kind: str, value: str) -> str:
        """The value's placeholder."""

    def mask(self, text: str) -> str:
        """Free text with all personal data replaced."""

    def known(self, text: str) -> str:
        """Text with the values replaced that this thread already knows."""

    def restore(self, text: str) -> str:
        """Text with the values in place of their placeholders."""


def mark_of(field: FieldInfo) -> PII | None:
    """The field's mark, also where it sits inside a union (``Annotated[str, PII("EMAIL")] | None``)."""
    inner = (
        meta for argument in get_args(field.annotation) for meta in getattr(argument, "__metadata__", ())
    )
    return next((meta for meta in (*field.metadata, *inner) if isinstance(meta, PII)), None)


class _Marked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_kwargs: Any) -> None:
        for name, field in cls.model_fields.items():
            if mark_of(field) is None and _holds_text(field.annotation):
                raise TypeError(f"{cls.__name__}.{name}: mark it PII(kind) or PLAIN")


class ToolArgs(_Marked):
    """Arguments of a tool: what the model fills in."""


class ToolOut(_Marked):
    """Result of a tool: what the model gets to see, masked field by field."""


def restored(args: type[ToolArgs], arguments: dict[str, Any], privacy: Privacy) -> dict[str, Any]:
    """Arguments with values in those fields that declare the need; the others keep their placeholders."""
    marks = {name: mark_of(field) for name, field in args.model_fields.items()}
    return {
        name: _map_text(value, privacy.restore) if (mark := marks.get(name)) and mark.kind else value
        for name, value in arguments.items()
    }


def masked(value: Any, privacy: Privacy, kind: str | None = None) -> Any:
    """A result as JSON for the model: marked fields as placeholders, the rest without any value that the
    thread knows.
    """
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {
            name: masked(getattr(value, name), privacy, mark.kind if (mark := mark_of(field)) else None)
            for name, field in fields.items()
        }
    if isinstance(value, list | tuple):
        return [masked(item, privacy, kind) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    if kind is None:
        return privacy.known(text)
    return privacy.mask(text) if kind == "TEXT" else privacy.token(kind, text)


def personal_fields(value: Any) -> list[str]:
    """Names of the fields of a result that hold somebody's data; for the audit log."""
    if isinstance(value, BaseModel):
        found: list[str] = []
        for field_name, field in type(value).model_fields.items():
            inner, mark = getattr(value, field_name), mark_of(field)
            found += [field_name] if mark and mark.kind and inner else personal_fields(inner)
        return list(dict.fromkeys(found))
    if isinstance(value, list | tuple):
        return list(dict.fromkeys(one for item in value for one in personal_fields(item)))
    return []


def _holds_text(annotation: Any) -> bool:
    return annotation is str or any(_holds_text(argument) for argument in get_args(annotation))


def _map_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_text(item, change) for item in value]
    return value
