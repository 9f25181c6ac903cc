"""Redis carries hints only: a wake-up, a draft, "there is something new". Nothing is lost when it loses
everything.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import structlog
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

# Subscribed all the time: redis-py stops listening when the last subscription goes.
_ALWAYS = "t:keep"


def make_pool(url: str) -> ConnectionPool:
    """A pool whose calls cannot hang: a black-holed Redis answers with an error within seconds (redis-py
    waits for ever by default).
    """
    return ConnectionPool.from_url(
        url,
        socket_timeout=5,
        socket_connect_timeout=2,
        socket_keepalive=True,
        health_check_interval=15,
        max_connections=50,
    )


async def end_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel until they have ended.

    Once is not always enough: redis-py and arq now and then turn a cancellation into an error of their own, and a loop that survives
    errors goes on.
    """
    pending = set(tasks)
    for _ in range(10):
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1)
        if not pending:
            return
    log.error("tasks_left", names=[task.get_name() for task in pending])


class EventBus:
    """Publish to the sockets of one thread, and hear what is published for the threads that have a socket
    here.

    Events are JSON objects. Delivery is best effort: a listener that must not miss anything reads the
    database from its cursor.
    """

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis(connection_pool=make_pool(url))
        self._url = url
        self._handlers: dict[str, set[Callable[[dict[str, Any]], Awaitable[None]]]] = {}
        self._pubsub: PubSub | None = None
        self._listener: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    async def publish(self, channel: str, event: dict[str, Any]) -> None:
        """Tell whoever listens. A failure is logged, never raised: the database has the truth."""
        try:
            async with asyncio.timeout(0.5):
                await self._redis.publish(channel, json.dumps(event, ensure_ascii=False))
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("publish_failed", error=type(error).__name__)

    async def subscribe(self, channel: str, handler: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        """Call ``handler`` for each event on ``channel`` until ``unsubscribe``."""
        self._handlers.setdefault(channel, set()).add(handler)
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen(), name="event-bus")
        await self._change("subscribe", channel)

    async def unsubscribe(self, channel: str, handler: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        handlers = self._handlers.get(channel, set())
        handlers.discard(handler)
        if not handlers and self._handlers.pop(channel, None) is not None:
            await self._change("unsubscribe", channel)

    async def _change(self, act: str, channel: str) -> None:
        """One change at a time on the one connection: visitors who come at once would overtake each other, or the reconnect."""
        async with self._changing:
            if self._pubsub is not None:
                with suppress(RedisError, OSError):
                    await getattr(self._pubsub, act)(channel)

    async def ping(self) -> None:
        async with asyncio.timeout(2):
            await self._redis.ping()

    async def aclose(self) -> None:
        if self._listener is not None:
            await end_tasks([self._listener])
        await self._redis.aclose(close_connection_pool=True)

    async def _listen(self) -> None:
        """One connection for all sockets of the process; made anew when Redis went away."""
        while True:
            # Its own connection without a read timeout: silence is normal here. Keepalive finds a dead peer.
            redis = Redis.from_url(
                self._url, socket_connect_timeout=2, socket_keepalive=True, health_check_interval=15
            )
            try:
                pubsub = redis.pubsub(ignore_subscribe_messages=True)
                async with self._changing:
                    await pubsub.subscribe(_ALWAYS, *self._handlers)
                    self._pubsub = pubsub
                async for message in pubsub.listen():
                    await self._dispatch(message)
            except (RedisError, OSError) as error:
                log.warning("event_bus_reconnects", error=type(error).__name__)
            finally:
                self._pubsub = None
                with suppress(RedisError, OSError):
                    await redis.aclose()
            await asyncio.sleep(0.5)

    async def _dispatch(self, message: dict[str, Any]) -> None:
        event = json.loads(message["data"])
        for handler in list(self._handlers.get(message["channel"].decode(), ())):
            try:
                await handler(event)
            except Exception:
                log.exception("event_handler_failed")
