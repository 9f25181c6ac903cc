"""The API process."""

import asyncio
import socket

import uvicorn

from server.app import create_app
from server.deps import build_parts, require_keys
from server.settings import ServerSettings
from server.telemetry import configure_logging

MAX_SOCKET_FRAME = 64 * 1024  # above the widget's own limit, so that a too long frame gets an answer


def serve(host: str, port: int, fd: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        fd: of an inherited listening socket; host and port are not used then.
    """
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
        proxy_headers=False,  # server/protection/address.py decides whom to believe
    )

    async def run() -> None:
        try:
            await require_keys(parts)
            await uvicorn.Server(config).serve(sockets=[socket.socket(fileno=fd)] if fd is not None else None)
        finally:
            await parts.aclose()

    asyncio.run(run())
