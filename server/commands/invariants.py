"""`python -m server invariants`: one JSON object, exit 1 where something does not hold."""

import json

from server.commands.environment import adopt_environment
from server.deps import make_keyring
from storage.repositories import invariants
from storage.settings import StorageSettings
from storage.tenancy import Database


async def report() -> int:
    adopt_environment()
    database = Database(StorageSettings(), make_keyring(), "invariants")
    try:
        async with database.platform_session("invariants: they are about all tenants") as session:
            found = await invariants.violations(session)
            totals = await invariants.totals(session)
    finally:
        await database.aclose()
    broken = {name: rows for name, rows in found.items() if rows}
    meanings = {invariant.name: invariant.meaning for invariant in invariants.INVARIANTS}
    print(
        json.dumps(
            {"ok": not broken, "totals": totals, "violations": broken, "checked": meanings},
            ensure_ascii=False,
        )
    )
    return 1 if broken else 0
