"""What the edge refuses before anybody's code has run."""

from storage.errors import AppError, UpstreamUnavailable, ValidationFailed


class RateLimited(AppError):
    """Too many requests; the answer's Retry-After says when one passes again."""

    code = "RATE_LIMITED"
    status = 429
    retryable = True


class MalformedRequest(ValidationFailed):
    """The request itself is broken, whatever it asks for."""

    status = 400


class BodyTooLarge(AppError):
    """More bytes than this address takes."""

    code = "TOO_LARGE"
    status = 413


class AddressTooLong(BodyTooLarge):
    """RFC 9110 15.5.15."""

    status = 414


class HeadersTooLarge(BodyTooLarge):
    """RFC 6585 section 5."""

    status = 431


class WrongMediaType(ValidationFailed):
    """The body is not of a type that this address reads."""

    status = 415


class MethodNotAllowed(AppError):
    """A method that no address here has."""

    code = "METHOD_NOT_ALLOWED"
    status = 405


class BodyTimeout(AppError):
    """The body came too slowly (RFC 9110 15.5.9)."""

    code = "REQUEST_TIMEOUT"
    status = 408
    retryable = True


class HandlerTimeout(UpstreamUnavailable):
    """We took too long."""
