"""One turn in a process of its own; see server/jobs/quarantine.py."""

from uuid import UUID

from server.deps import opened_parts
from server.mind import build_mind
from server.worker import opened_inbox
from storage.errors import LeaseLost
from storage.tenancy import is_connection_loss


async def run_turn(tenant: str, thread: str, fence: str) -> int:
    """Exit 0: the turn came to an end, good or bad, and it is written down. Anything else: the process died
    of it.
    """
    async with (
        opened_parts("quarantine") as parts,
        opened_inbox(parts, build_mind(parts), None) as (inbox, _outbox),
    ):
        try:
            await inbox.resume(UUID(tenant), UUID(thread), UUID(fence))
        except LeaseLost:
            return 0
        except Exception as error:
            if is_connection_loss(error):  # the database went away: no fault of the turn's
                return 0
            raise
    return 0
