"""One shape for every error: ``{"error": {"code", "message", "details", "request_id"}}``."""

from typing import Any

import structlog
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException
from sqlalchemy.exc import DataError, IntegrityError

from server.auth.guard import request_id_of
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
    # A server that has too much to do says so by 503, which is a refusal and no failure: a traceback for each would be the greater load.
    if status >= 500 and code != "RATE_LIMITED":
        log.error("request_failed", path=request.url.path, code=code, exc_info=error)
    request.scope["state"]["refused"] = code
    return Response(
        envelope(code, message, details, request_id),
        status_code=status,
        media_type=MediaType.JSON,
        headers=headers,
    )


def _fields(extra: Any) -> list[dict[str, str]]:
    if not isinstance(extra, list):
        return []
    return [
        {"field": str(item.get("key", "")), "message": str(item.get("message", ""))}
        for item in extra
        if isinstance(item, dict)
    ]
