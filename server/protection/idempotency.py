"""The same request twice is carried out once: the Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header-07).

Two halves, because Litestar runs guards inside all middleware: ``before_request`` runs behind every guard and before the handler's
arguments are read, so it asks the store there, on behalf of a caller who is known and allowed; the middleware, outside, sees the answer
as it will leave, errors included, and stores it. A handler that sets its own ``before_request`` replaces this one: none may.

The answer is in the store before its last byte leaves. Whatever dies in between, the act is not done again: the request's own transaction
has marked the row ``committed``, and the store then answers ``Lost``.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from litestar import Request, Response
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from server.protection.errors import MalformedRequest
from storage.errors import Conflict, ValidationFailed
from storage.tenancy import TenantContext

log = structlog.get_logger(__name__)

METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
MAX_KEY = 255
MAX_STORED = 1_000_000  # bytes of an answer; a larger one is not kept, and asking again gives a conflict
# They say nothing about the act: the same request may succeed when the caller has signed in, waited or been given a right.
_NOT_STORED = frozenset({401, 403, 408, 425, 429})
# Never a cookie: whoever gets the replay may be somebody else's browser.
_STORED_HEADERS = frozenset(
    {b"content-type", b"content-language", b"content-disposition", b"etag", b"link", b"location"}
)


@dataclass(frozen=True)
class Begun:
    """Nobody has asked this before: the row is there, in progress, and the handler may act."""


@dataclass(frozen=True)
class Replay:
    """It was done; this was the answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Busy:
    """The first request is still in work."""


@dataclass(frozen=True)
class Different:
    """The key belongs to another request."""


@dataclass(frozen=True)
class Lost:
    """It was done, and the answer is gone."""


class IdempotencyStore(Protocol):
    """Where keys and answers are kept, by tenant, actor and key, for at least 24 hours.

    The request's own transaction marks the row ``committed`` (the key is in ``scope["state"]["idempotency"]``); from then on ``abandon``
    leaves it alone.
    """

    async def begin(
        self, context: TenantContext, key: str, fingerprint: str
    ) -> Begun | Replay | Busy | Different | Lost:
        """Claim the key, or say what became of it."""

    async def finish(
        self, context: TenantContext, key: str, status: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Keep the answer."""

    async def abandon(self, context: TenantContext, key: str) -> None:
        """Nothing was done, the key is free again; no effect on a row that is ``committed``."""


@dataclass(frozen=True)
class Begin:
    """What a request that was begun leaves in its scope's state, as ``idempotency``."""

    context: TenantContext
    key: str


class Idempotency:
    """The half that runs inside: pass ``before_request`` to Litestar."""

    def __init__(self, store: IdempotencyStore) -> None:
        self.store = store

    async def before_request(self, request: Request[Any, Any, Any]) -> Response[bytes] | None:
        """Ask the store, for a request that carries a key.

        Returns:
            The stored answer, or None where the handler has to act.

        Raises:
            MalformedRequest: the key is not 1 to 255 printable ASCII characters.
            ValidationFailed: the key was used for another request.
            Conflict: the first request is in work, or was done and its answer is gone.
        """
        scope = request.scope
        context: TenantContext | None = scope["state"].get("context")
        if scope["method"] not in METHODS or context is None or not _applies(scope):
            return None
        keys = [value for name, value in scope["headers"] if name == b"idempotency-key"]
        if not keys:
            return None
        key = checked_key(keys)
        found = await self.store.begin(context, key, fingerprint(scope, context, await request.body()))
        if isinstance(found, Begun):
            scope["state"]["idempotency"] = Begin(context, key)
            return None
        if isinstance(found, Replay):
            headers = {name.lower(): value for name, value in found.headers.items()}
            media_type = headers.pop("content-type", None)
            headers["idempotent-replayed"] = "true"
            return Response(found.body, status_code=found.status, headers=headers, media_type=media_type)
        if isinstance(found, Busy):
            scope["state"]["retry_after"] = 1
            raise Conflict("The first request with this Idempotency-Key is still in work. Ask again soon.")
        if isinstance(found, Different):
            raise ValidationFailed("This Idempotency-Key was used for another request. Take a new one.")
        raise Conflict(
            "The request with this Idempotency-Key was carried out, or may have been, and its answer was lost. Look at the record first."
        )


class IdempotencyMiddleware:
    """The half that runs outside: keeps the answer of a request that was begun."""

    def __init__(self, app: ASGIApp, store: IdempotencyStore) -> None:
        self._app = app
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] not in METHODS:
            await self._app(scope, receive, send)
            return
        answer = _Answer(self._store, scope, send)
        try:
            await self._app(scope, receive, answer)
        except BaseException:
            await answer.broke()
            raise


class _Answer:
    """Holds an answer back until it is stored."""

    def __init__(self, store: IdempotencyStore, scope: Scope, send: Send) -> None:
        self._store = store
        self._scope = scope
        self._send = send
        self._start: Any = None
        self._body = bytearray()
        self._settled = False

    async def __call__(self, message: Message) -> None:
        begun: Begin | None = self._scope["state"].get("idempotency")
        if begun is None or self._settled:
            await self._send(message)
        elif message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            self._body += message["body"]
            if message.get("more_body", False) and len(self._body) <= MAX_STORED:
                return
            await self._settle(begun)
            await self._send(self._start)
            await self._send({**message, "body": bytes(self._body)})
        else:
            await self._send(message)

    async def broke(self) -> None:
        """No answer was made: what was not committed may be tried again."""
        begun: Begin | None = self._scope["state"].get("idempotency")
        if begun is None or self._settled:
            return
        self._settled = True
        try:
            await asyncio.shield(self._store.abandon(begun.context, begun.key))
        except Exception:
            log.exception("idempotency_abandon_failed")

    async def _settle(self, begun: Begin) -> None:
        """A failure here does not take the caller's answer away: the row stays as it is, and a repetition gives a conflict."""
        self._settled = True
        status: int = self._start["status"]
        try:
            if status >= 500 or status in _NOT_STORED:
                await self._store.abandon(begun.context, begun.key)
            elif len(self._body) <= MAX_STORED:
                headers = {
                    name.decode("latin-1"): value.decode("latin-1")
                    for name, value in self._start.get("headers", ())
                    if name in _STORED_HEADERS
                }
                await self._store.finish(begun.context, begun.key, status, headers, bytes(self._body))
        except Exception:
            log.exception("idempotency_store_failed")


def checked_key(keys: list[bytes]) -> str:
    """The header's value.

    Raises:
        MalformedRequest: it is not one of 1 to 255 printable ASCII characters.
    """
    key = keys[0].decode("latin-1").strip(" \t")
    if len(keys) != 1 or not 1 <= len(key) <= MAX_KEY or not all(" " <= sign <= "~" for sign in key):
        raise MalformedRequest(f"Idempotency-Key is 1 to {MAX_KEY} printable ASCII characters.")
    return key


def fingerprint(scope: Scope, context: TenantContext, body: bytes) -> str:
    """What makes two requests the same: who asks, for what, with what. SHA-256, hexadecimal."""
    digest = hashlib.sha256()
    content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    parts = (
        context.actor.encode(),
        str(scope.get("method")).encode(),
        scope["path"].encode("utf-8", "surrogatepass"),
        scope["query_string"],
        content_type,
        body,
    )
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def _applies(scope: Scope) -> bool:
    handler: Any = scope["route_handler"]
    return handler.opt.get("idempotent", True) is not False
