"""One log line for each request that was refused: a wrong password, a missing right, a forged page, a limit, an input of the wrong form
(ASVS 5.0 V16.3). Who asked is bound to the log's context by the guard; the address that was asked is the stranger's own text, so the route
stands for it.
"""

import time
from collections.abc import Callable

import structlog
from litestar.types import Scope

from server.auth.guard import request_id_of
from server.protection.address import Network, client_address

log = structlog.get_logger(__name__)


class Refusals:
    """Writes the lines, so many a second at most: whoever sends a flood of bad requests must not fill the disk with them.

    Args:
        trusted: networks of our own proxies.
        most: lines in a second.
        clock: seconds that only grow.
    """

    def __init__(
        self, trusted: tuple[Network, ...], most: int = 50, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._trusted = trusted
        self._most = most
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._left_out = 0

    def told(self, scope: Scope, status: int) -> None:
        """A request or a socket was answered with this status: 400 to 499, or 503 for having too much to do.

        The line's ``left_out`` is the number of refusals since the line before that have none.
        """
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= self._most:
            self._left_out += 1
            return
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        log.warning(
            "request_refused",
            status=status,
            code=scope["state"].get("refused"),
            method=scope.get("method", "WEBSOCKET"),
            route=scope.get("path_template"),
            address=client_address(scope, self._trusted),
            request_id=request_id_of(scope),
            left_out=left_out,
        )
