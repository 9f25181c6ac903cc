"""The record of who did what; ids and field names only, never content."""

import json
from typing import Any

from storage.ids import new_id
from storage.sql import Session, text
from storage.tenancy import TenantContext


async def record(
    session: Session,
    context: TenantContext,
    action: str,
    object_type: str,
    object_id: object,
    **detail: Any,
) -> None:
    """Add an entry in the transaction of the act itself: no act without its entry, no entry without its act."""
    await session.execute(
        text("""
        insert into audit_log (id, actor, action, object_type, object_id, detail, request_id)
        values (:id, :actor, :action, :type, :object, cast(:detail as jsonb), :request)
        """),
        {
            "id": new_id(),
            "actor": context.actor,
            "action": action,
            "type": object_type,
            "object": str(object_id),
            "detail": json.dumps(detail, default=str),
            "request": context.request_id,
        },
    )
