"""The API process: routes, guards, errors, documentation."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from server.api.docs import DocsController
from server.api.health import HealthController
from server.api.inbox import DeadLetterController, MessageController, ThreadController
from server.auth.api import AuthController
from server.auth.guard import RequestIdMiddleware, require_scopes, stamp
from server.auth.passwords import Passwords
from server.auth.tokens import Tokens
from server.channels.widget.pages import WidgetPages
from server.channels.widget.socket import widget_socket
from server.deps import Parts, dependencies
from server.errors import render_error

DESCRIPTION = """Staff run inbox, CRM and knowledge over this API. Sign in with POST /api/v1/auth/login and send the token as
`Authorization: Bearer …`. Errors have one shape: `{"error": {"code", "message", "details", "request_id"}}`."""


def create_app(parts: Parts) -> Litestar:
    """The ASGI application over the process's parts. Closing them is the caller's business."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        app.state.passwords = Passwords()  # its semaphore belongs to the running loop
        yield

    handlers: list[Any] = [
        HealthController,
        AuthController,
        ThreadController,
        MessageController,
        DeadLetterController,
        DocsController,
        WidgetPages,
        widget_socket,
        *parts.registry.controllers,
    ]
    tokens = Tokens(parts.storage.require_secret_key(), parts.settings.token_minutes)
    return Litestar(
        route_handlers=handlers,
        guards=[require_scopes],
        middleware=[RequestIdMiddleware],
        before_send=[stamp],
        exception_handlers={Exception: render_error},
        dependencies=dependencies(parts),
        lifespan=[lifespan],
        state=State({"parts": parts, "database": parts.database, "tokens": tokens}),
        request_max_body_size=1_000_000,
        openapi_config=OpenAPIConfig(
            title="AI Secretary",
            use_handler_docstrings=True,
            version="1",
            description=DESCRIPTION,
            components=Components(
                security_schemes={"token": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")}
            ),
            security=[{"token": []}],
            # /docs serves the description; Litestar's own address for it exists and is open to nobody.
            render_plugins=[JsonRenderPlugin()],
        ),
    )
