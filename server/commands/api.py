"""The API process."""

import asyncio

import uvicorn

from server.app import create_app
from server.deps import build_parts
from server.settings import ServerSettings
from server.telemetry import configure_logging

MAX_SOCKET_FRAME = 64 * 1024  # above the widget's own limit, so that a too long frame gets an answer


def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = ServerSettings()
    configure_logging(settings.log_level)
    parts = build_parts("api", settings)
    config = uvicorn.Config(
        create_app(parts),
        host=host,
        port=port,
        ws="websockets-sansio",  # 22 KB a socket; the default implementation is deprecated
        ws_max_size=MAX_SOCKET_FRAME,
        ws_ping_interval=20,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
    )

    async def run() -> None:
        try:
            await uvicorn.Server(config).serve()
        finally:
            await parts.aclose()

    asyncio.run(run())
