"""How much a request may bring, how long it may take to bring it, and how long its handler may take.

A route says otherwise in its ``opt``: ``max_body`` (bytes), ``timeout`` (seconds until the answer begins; None for no limit) and
``content_types`` (what it reads; JSON is implied by a ``data`` argument without a media type).
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from litestar.enums import ScopeType
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from server.protection.errors import (
    BodyTimeout,
    BodyTooLarge,
    HandlerTimeout,
    MalformedRequest,
    WrongMediaType,
)
from server.protection.json_shape import check_json_shape
from server.protection.settings import ProtectionSettings

JSON = "application/json"


@dataclass(frozen=True)
class _Plan:
    """What holds for one route."""

    max_body: int
    timeout: float | None
    content_types: frozenset[str]


class BodyLimitMiddleware:
    """Litestar builds one of it for each route."""

    def __init__(self, app: ASGIApp, settings: ProtectionSettings) -> None:
        self._app = app
        self._settings = settings
        self._plan: _Plan | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        plan = self._plan or self._make_plan(scope["route_handler"])
        body = _Body(receive, plan, self._settings.body_seconds)
        body.announce(scope)
        if plan.timeout is None:
            await self._app(scope, body, send)
            return
        try:
            async with asyncio.timeout(plan.timeout) as limit:

                async def begun(message: Message) -> None:
                    # From here on the client's speed decides, not ours.
                    limit.reschedule(None)
                    await send(message)

                await self._app(scope, body, begun)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise HandlerTimeout("This took too long and was broken off. Try again later.") from error

    def _make_plan(self, handler: Any) -> _Plan:
        content_types: frozenset[str] = frozenset(handler.opt.get("content_types", ()))
        if not content_types and isinstance(handler, HTTPRouteHandler) and handler.parsed_data_field:
            definition: Any = handler.parsed_data_field.kwarg_definition
            media_type = getattr(definition, "media_type", None)
            content_types = frozenset({str(getattr(media_type, "value", media_type) or JSON)})
        self._plan = _Plan(
            max_body=int(handler.opt.get("max_body", self._settings.max_body)),
            timeout=handler.opt.get("timeout", self._settings.handler_seconds),
            content_types=content_types,
        )
        return self._plan


class _Body:
    """The receiving side of a request, within its limits. Nothing is read before somebody asks for it, so the guard comes first."""

    def __init__(self, receive: Receive, plan: _Plan, seconds: float) -> None:
        self._receive = receive
        self._plan = plan
        self._seconds = seconds
        self._deadline = 0.0
        self._received = 0
        self._ended = False
        self._is_json = False

    def announce(self, scope: Scope) -> None:
        """Judge what the headers say.

        Raises:
            BodyTooLarge: more than the route takes.
            MalformedRequest: the length is no number.
            WrongMediaType: the route reads other types.
        """
        headers = scope["headers"]
        length = next((value for name, value in headers if name == b"content-length"), None)
        if length is not None and not length.isdigit():
            raise MalformedRequest("Content-Length is not a number.")
        if length is not None and int(length) > self._plan.max_body:
            raise self._too_large()
        chunked = any(name == b"transfer-encoding" for name, _ in headers)
        if not chunked and not int(length or 0):
            return
        said = next((value for name, value in headers if name == b"content-type"), b"").decode("latin-1")
        media_type, _, parameters = said.partition(";")
        media_type = media_type.strip().lower()
        self._is_json = media_type == JSON or media_type.endswith("+json")
        if not self._plan.content_types:
            return
        if media_type not in self._plan.content_types and not (
            self._is_json and JSON in self._plan.content_types
        ):
            wanted = sorted(self._plan.content_types)
            raise WrongMediaType(f"Send the body as {' or '.join(wanted)}.", content_types=wanted)
        if self._is_json and "charset" in parameters.lower() and "utf-8" not in parameters.lower():
            raise WrongMediaType("Send JSON as UTF-8 (RFC 8259 section 8.1).")

    async def __call__(self) -> Any:
        if self._ended:
            return await self._receive()  # who waits here waits for the client to leave
        if not self._is_json:
            return await self._next()
        # JSON is judged as a whole, before anybody decodes it.
        parts: list[bytes] = []
        while True:
            message = await self._next()
            if message["type"] != "http.request":
                return message
            parts.append(message.get("body", b""))
            if self._ended:
                break
        text = b"".join(parts)
        check_json_shape(text)
        return {"type": "http.request", "body": text, "more_body": False}

    async def _next(self) -> Any:
        loop = asyncio.get_running_loop()
        self._deadline = self._deadline or loop.time() + self._seconds
        try:
            async with asyncio.timeout_at(self._deadline):
                message: Any = await self._receive()
        except TimeoutError:
            self._ended = True
            raise BodyTimeout("The request's body came too slowly.") from None
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > self._plan.max_body:
                raise self._too_large()
            self._ended = not message.get("more_body", False)
        else:
            self._ended = True
        return message

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"The body is larger than {self._plan.max_body} bytes.", max_bytes=self._plan.max_body
        )
