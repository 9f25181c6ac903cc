"""One shape for every error: ``{"error": {"code", "message", "details", "request_id"}}``."""

import time
from collections.abc import Callable
from typing import Any

import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException
from sqlalchemy.exc import DataError, IntegrityError

from server.auth.guard import request_id_of
from server.protection.address import client_address
from storage.errors import AppError

log = structlog.get_logger(__name__)

_CODES = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    409: "CONFLICT",
    413: "TOO_LARGE",
    414: "TOO_LARGE",
    415: "VALIDATION_ERROR",
    422: "VALIDATION_ERROR",
    429: "RATE_LIMITED",
    431: "TOO_LARGE",
    503: "UPSTREAM_UNAVAILABLE",
}


class Sparse:
    """Lets some log lines a second pass and counts the rest: whoever sends a flood of bad requests must not fill the disk with them.

    Args:
        most: lines in a second.
        clock: seconds that only grow.
    """

    def __init__(self, most: int = 50, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def passes(self) -> int | None:
        """How many were left out before this line; None where it is left out itself."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= self._most:
            self._left_out += 1
            return None
        self._lines += 1
        before, self._left_out = self._left_out, 0
        return before


_refusals = Sparse()


def envelope(code: str, message: str, details: dict[str, Any], request_id: str | None) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "details": details, "request_id": request_id}}


def render_error(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """The answer to any exception. What we did not foresee is logged in full and told in one sentence."""
    request_id = request_id_of(request.scope)
    status, code, message, details = (
        500,
        "INTERNAL_ERROR",
        "Something went wrong on our side. Tell us the request id.",
        {},
    )
    headers: dict[str, str] = {}
    if isinstance(error, AppError):
        status, code, message, details = error.status, error.code, error.message, error.details
        if "retry_after" in details:
            request.scope["state"]["retry_after"] = details["retry_after"]
    elif isinstance(error, ValidationException):
        status, code, message = 400, "VALIDATION_ERROR", "The request is not valid."
        details = {"fields": _fields(error.extra)}
    elif isinstance(error, HTTPException) and error.status_code < 500:
        status, code = error.status_code, _CODES.get(error.status_code, "VALIDATION_ERROR")
        message = "No such address." if status == 404 else str(error.detail)
        headers = dict(error.headers or {})
    elif isinstance(error, IntegrityError):
        # What the request refers to, or what it wants to be unique, was changed between our look and our write.
        status, code, message = 409, "CONFLICT", "Somebody else has changed this meanwhile. Look at it again."
    elif isinstance(error, DataError):
        # PostgreSQL refuses the value itself: NUL in a text, a number that is too large for its column.
        status, code, message = 422, "VALIDATION_ERROR", "The request holds a value that cannot be stored."
    if status >= 500:
        log.error("request_failed", path=request.url.path, code=code, exc_info=error)
    else:
        _log_refusal(request, status, code, details)
    return Response(
        envelope(code, message, details, request_id),
        status_code=status,
        media_type=MediaType.JSON,
        headers=headers,
    )


def _log_refusal(request: Request[Any, Any, Any], status: int, code: str, details: dict[str, Any]) -> None:
    """Who was refused what (ASVS 5.0 V16.3): a wrong password, a missing right, a forged request, a limit, an input of the wrong form.
    The route, not the address that was asked: that is the stranger's own text.
    """
    left_out = _refusals.passes()
    if left_out is None:
        return
    networks = request.app.state.protection.settings.networks
    log.warning(
        "request_refused",
        status=status,
        code=code,
        method=request.method,
        route=request.scope.get("path_template") or "unknown",
        address=client_address(request.scope, networks),
        missing_scopes=details.get("missing_scopes"),
        left_out=left_out,
    )


def _fields(extra: Any) -> list[dict[str, str]]:
    if not isinstance(extra, list):
        return []
    return [
        {"field": str(item.get("key", "")), "message": str(item.get("message", ""))}
        for item in extra
        if isinstance(item, dict)
    ]
