"""Step 8 of a message's path (b): how each kind of channel sends."""

from collections.abc import Mapping
from typing import Protocol

from server.channels.widget.send import WidgetSender
from storage.redis import EventBus
from storage.repositories.outbox import Delivery
from storage.tenancy import TenantContext


class Sender(Protocol):
    """Sends one message.

    Attributes:
        repeatable: True where the other side drops a second copy by its id; then the note that it was sent
            need not reach the disk first.
    """

    repeatable: bool

    async def send(self, context: TenantContext, delivery: Delivery) -> str | None:
        """Send; returns the provider's id of the message, if it gives one. Any exception means: not sent, try
        later.
        """
        ...


def senders(bus: EventBus) -> Mapping[str, Sender]:
    """The sender of each kind of channel."""
    return {"widget": WidgetSender(bus)}
