"""Steps 1 and 2 of a message's path, as far as they are the same for every channel: check the text, store it,
wake a worker.
"""

from uuid import UUID

from storage.errors import ValidationFailed
from storage.queue import Queue
from storage.repositories import inbox
from storage.repositories.inbox import Received
from storage.tenancy import Database, TenantContext

MAX_CHARACTERS = 4_000
MAX_EXTERNAL_ID = 200


def checked_text(value: object) -> str:
    """A customer's text, fit to be stored.

    Any script and any emoji is welcome. NUL cannot be stored by PostgreSQL and lone surrogates are no
    characters: what holds them was not typed by a person.

    Raises:
        ValidationFailed: it is no text, empty, too long, or binary.
    """
    if not isinstance(value, str):
        raise ValidationFailed("The message must be text.", field="text")
    text = value.strip()
    if not text:
        raise ValidationFailed("The message is empty. Write something.", field="text")
    if len(text) > MAX_CHARACTERS:
        raise ValidationFailed(
            f"The message has {len(text)} characters; {MAX_CHARACTERS} are possible. Send it in parts.",
            field="text",
        )
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValidationFailed("The message holds characters that are no text.", field="text")
    return text


async def receive(
    database: Database,
    queue: Queue,
    context: TenantContext,
    *,
    channel_id: UUID,
    thread_id: UUID,
    external_id: str,
    text: object,
) -> Received:
    """Store a message once and wake a worker. When this returns the message cannot be lost any more.

    Args:
        external_id: the channel's id of the message; the same one again is the same message.

    Raises:
        ValidationFailed: nothing was stored.
    """
    body = checked_text(text)
    if not external_id or len(external_id) > MAX_EXTERNAL_ID or not external_id.isprintable():
        raise ValidationFailed("The message's id is missing or malformed.", field="cid")
    async with database.tenant_session(context) as session:
        received = await inbox.receive(
            session, channel_id=channel_id, thread_id=thread_id, external_id=external_id, body=body
        )
    await queue.wake_inbox(context.tenant_id, thread_id)
    return received
