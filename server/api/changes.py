"""What handlers share that change the records of a business: a transaction whose end they know, and If-Match."""

from contextlib import asynccontextmanager
from typing import Any, ClassVar

from litestar import Request

from server.deps import provide_session
from storage.errors import AppError

transaction = asynccontextmanager(provide_session)
"""The request's transaction as a block, for handlers that have something to do when it is committed: other requests must not find
in memory what was just taken away.
"""


class PreconditionFailed(AppError):
    """The record is not the one that the client has seen any more (RFC 9110, 13.1.1)."""

    code: ClassVar[str] = "PRECONDITION_FAILED"
    status: ClassVar[int] = 412


def etag(version: int) -> str:
    """The entity tag of a record's version."""
    return f'"{version}"'


def require_match(request: Request[Any, Any, Any], version: int) -> None:
    """Refuse a change of something else than the client has seen, where it says what that was. Weak tags never match here.

    Raises:
        PreconditionFailed: none of the tags in If-Match is the record's.
    """
    header = request.headers.get("if-match")
    if header is None or header.strip() == "*":
        return
    if etag(version) not in [tag.strip() for tag in header.split(",")]:
        raise PreconditionFailed("The record was changed meanwhile. Read it again.", etag=etag(version))
