"""Serve a sandbox on loopback: in a thread, or by hand as `python -m tests.sandbox.server --port 9100`."""

import argparse
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import uvicorn

from tests.sandbox.openai import OpenAISandbox, Reply


class Sandbox(Protocol):
    """What `serve` needs of a provider's sandbox."""

    def app(self) -> Any: ...

    def release(self) -> None: ...


@contextmanager
def serve(sandbox: Sandbox) -> Iterator[str]:
    """Run the sandbox on a free loopback port in a thread; gives the base URL without a trailing slash.

    Raises:
        RuntimeError: the server did not start or did not stop within 10 s.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    # a dropped connection is a fault the test ordered, so the server's own report of it is noise
    config = uvicorn.Config(sandbox.app(), log_level="critical", ws="none", timeout_graceful_shutdown=1)
    server = Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="sandbox", daemon=True)
    thread.start()
    try:
        if not started.wait(10):
            raise RuntimeError("the sandbox did not start")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        sandbox.release()
        server.should_exit = True
        thread.join(10)
        listener.close()
    if thread.is_alive():
        raise RuntimeError("the sandbox did not stop")


def main() -> None:
    """Serve the OpenAI sandbox until interrupted; unscripted chats get one fixed sentence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9100)
    port = parser.parse_args().port
    sandbox = OpenAISandbox()
    sandbox.default(lambda body: Reply(text=f"sandbox: {len(body['messages'])} messages received"))
    uvicorn.run(sandbox.app(), host="127.0.0.1", port=port, log_level="info", ws="none")


if __name__ == "__main__":
    main()
