"""Errors that say by themselves how the edge shall answer: a code, an HTTP status, whether a retry can help."""

from typing import Any, ClassVar


class AppError(Exception):
    """Base of every error that may reach a user.

    Attributes:
        code: stable, upper-case name for programs.
        status: HTTP status of the answer.
        retryable: True where the same request may succeed later.
        details: what else a program may need, JSON-serialisable, never personal data.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class ConfigurationError(AppError):
    """The process cannot start as it was configured."""

    code = "CONFIGURATION_ERROR"


class ValidationFailed(AppError):
    """The request is understood and wrong."""

    code = "VALIDATION_ERROR"
    status = 422


class NotFound(AppError):
    """Missing, or another tenant's: the two look the same on purpose."""

    code = "NOT_FOUND"
    status = 404

    def __init__(self, what: str = "Not found.") -> None:
        super().__init__(what)


class Conflict(AppError):
    """The state of the record does not allow it."""

    code = "CONFLICT"
    status = 409


class Unauthenticated(AppError):
    """No valid proof of who is asking."""

    code = "UNAUTHENTICATED"
    status = 401


class Forbidden(AppError):
    """Known, but not allowed."""

    code = "FORBIDDEN"
    status = 403


class UpstreamUnavailable(AppError):
    """A service we depend on does not answer."""

    code = "UPSTREAM_UNAVAILABLE"
    status = 503
    retryable = True


class LeaseLost(Exception):
    """Another worker holds the thread now; whoever sees this stops at once and writes nothing."""


def told(error: BaseException) -> str:
    """What may stand in a column that people read: our own sentences, and of everything else the kind only. A driver's or
    a provider's text may hold a piece of what the customer wrote; the log has it, masked.
    """
    name = type(error).__name__
    return f"{name}: {error.message}"[:500] if isinstance(error, AppError) else name
