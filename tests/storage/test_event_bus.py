"""The event bus: many who come at once, and a Redis that went away."""

import asyncio
from typing import Any

from storage.redis import EventBus
from tests.support.servers import Addresses


async def test_everybody_who_comes_at_once_hears(addresses: Addresses) -> None:
    bus, heard = EventBus(addresses.redis_url), asyncio.Queue[int]()
    channels = [f"t:test:bus:{number}" for number in range(40)]

    def listener(number: int) -> Any:
        async def on_event(event: dict[str, Any]) -> None:
            heard.put_nowait(number if event == {"t": "new"} else -1)

        return on_event

    handlers = [listener(number) for number in range(40)]
    try:
        await asyncio.gather(*map(bus.subscribe, channels, handlers))
        # The first one starts the connection; its subscription is confirmed when it hears itself.
        async with asyncio.timeout(10):
            while heard.empty():
                await bus.publish(channels[0], {"t": "new"})
                await asyncio.sleep(0.01)
        while not heard.empty():
            heard.get_nowait()
        for channel in channels[1:]:
            await bus.publish(channel, {"t": "new"})
        got: set[int] = set()
        async with asyncio.timeout(10):
            while len(got - {0}) < 39:
                got.add(await heard.get())
        assert got - {0} == set(range(1, 40))
        await bus.unsubscribe(channels[1], handlers[1])
        await bus.publish(channels[1], {"t": "new"})
        await bus.publish(channels[2], {"t": "new"})
        async with asyncio.timeout(10):
            assert await heard.get() in {0, 2}
    finally:
        await bus.aclose()
