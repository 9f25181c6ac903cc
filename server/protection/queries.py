"""What a query string may not have, whatever the route: the same parameter twice, and times that are none of RFC 3339.

A parameter that is given twice means one thing to us and another to whoever stands in front of us (RFC 6749 3.1 forbids it for sign-in);
and the decoder takes any number for a time, as seconds since 1970.
"""

import re
from datetime import datetime
from typing import Any, get_args
from urllib.parse import parse_qsl

from litestar.types import Scope

from server.protection.errors import MalformedRequest

# RFC 3339 5.6, with the offset: a time without one is another moment for each reader. The fraction may have what a database keeps.
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def check_query(scope: Scope) -> None:
    """Refuse such a query.

    Raises:
        MalformedRequest: a parameter is there twice, or is no time where the route wants one.
    """
    text = scope["query_string"]
    if not text:
        return
    given = parse_qsl(text.decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="replace")
    values = dict(given)
    if len(values) != len(given):
        raise MalformedRequest("A parameter of the address is given more than once.")
    for name in _times(scope["route_handler"]):
        if name in values and not _TIME.fullmatch(values[name]):
            raise MalformedRequest(
                f"{name} is a time with its offset, such as 2026-01-31T09:00:00Z.", field=name
            )


def _times(handler: Any) -> list[str]:
    """Names of the route's parameters that are times."""
    return [
        name
        for name, field in handler.parsed_fn_signature.parameters.items()
        if field.annotation is datetime or datetime in get_args(field.annotation)
    ]
