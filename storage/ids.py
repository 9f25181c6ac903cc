"""Identifiers of rows: UUID version 7 (RFC 9562), so that primary keys grow with time and indexes stay
compact.
"""

from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """A fresh UUIDv7. Inside a turn use the journal's ``new_id`` instead: a re-run must get the same one."""
    return UUID(int=uuid_utils.uuid7().int)
