"""The API process: routes, guards, errors, documentation."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from server.api import CONTROLLERS
from server.auth.cookies import SESSION_COOKIE
from server.auth.guard import RequestIdMiddleware, require_rights, stamp
from server.auth.identity import close_identity, make_identity
from server.auth.settings import AuthSettings
from server.channels.widget.pages import WidgetPages
from server.channels.widget.socket import widget_socket
from server.deps import Parts, dependencies, keyring_of
from server.errors import render_error
from server.jobs.privacy import forget_keys
from server.protection.answers import StoredAnswers, TenantOrigins
from server.protection.cors import CachedOrigins
from server.protection.edge import Protection
from server.protection.settings import ProtectionSettings
from storage.limits import RateLimiter

DESCRIPTION = """Staff run inbox, CRM and knowledge over this API. Sign in with POST /api/v1/auth/login and send the token as
`Authorization: Bearer …`. Errors have one shape: `{"error": {"code", "message", "details", "request_id"}}`."""


def create_app(parts: Parts) -> Litestar:
    """The ASGI application over the process's parts. Closing them is the caller's business."""
    protection = Protection(
        ProtectionSettings(),
        RateLimiter(parts.storage.redis_url or ""),
        CachedOrigins(TenantOrigins(parts.database)),
        StoredAnswers(parts.database),
    )
    identity = make_identity(parts.database, parts.storage, AuthSettings())

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        await forget_keys(parts.bus, keyring_of(parts))
        yield
        await close_identity(identity)
        await protection.aclose()

    handlers: list[Any] = [*CONTROLLERS, WidgetPages, widget_socket, *parts.registry.controllers]
    app = Litestar(
        route_handlers=handlers,
        guards=[require_rights],
        middleware=[RequestIdMiddleware, *protection.middleware],
        before_request=protection.before_request,
        before_send=[stamp],
        exception_handlers={Exception: render_error},
        dependencies=dependencies(parts),
        lifespan=[lifespan],
        # Litestar would take the logs' format over (server/telemetry.py has it), and the debug mode from the environment.
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
        state=State(
            {"parts": parts, "database": parts.database, "identity": identity, "protection": protection}
        ),
        request_max_body_size=None,  # server/protection/bodies.py counts, by route
        openapi_config=OpenAPIConfig(
            title="AI Secretary",
            use_handler_docstrings=True,
            version="1",
            description=DESCRIPTION,
            components=Components(
                security_schemes={
                    "token": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT or API key"),
                    "session": SecurityScheme(
                        type="apiKey", name=SESSION_COOKIE, security_scheme_in="cookie"
                    ),
                }
            ),
            security=[{"token": []}, {"session": []}],
            # /docs serves the description; Litestar's own address for it exists and is open to nobody.
            render_plugins=[JsonRenderPlugin()],
        ),
    )
    return protection.install(app)
