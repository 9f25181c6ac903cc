"""Step 8 of a message's path (c): tell the sockets of a thread that there is something new.

The message itself is read from the database by each socket from its own cursor; a visitor who is away gets it
when they come back.
"""

from storage.redis import EventBus
from storage.repositories.outbox import Delivery
from storage.tenancy import TenantContext


def room(context: TenantContext, thread_id: object) -> str:
    """The thread's channel on the event bus."""
    return context.redis_key("thread", thread_id)


class WidgetSender:
    repeatable = True  # the widget takes only the next sequence number

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    async def send(self, context: TenantContext, delivery: Delivery) -> str | None:
        await self._bus.publish(room(context, delivery.thread_id), {"t": "new"})
        return None
