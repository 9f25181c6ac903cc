"""Seals what an older version has stored in clear. Migration core_0002 marks such values with a first byte 0; SQL does not have the
keys, so this runs after the migrations. Batches, each its own transaction: it may be killed and started again.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from storage.crypto.cipher import Cipher, Subject
from storage.crypto.keyring import Keyring
from storage.errors import ConfigurationError
from storage.placeholders import normalise
from storage.registry import PersonalColumn, columns
from storage.repositories.turns import step_id
from storage.sql import Session, text
from storage.tenancy import Database

BATCH = 200
_CLEAR = r"'\x00'::bytea"
_BLIND = {"contacts.email": ("email_bi", "EMAIL"), "contacts.phone": ("phone_bi", "PHONE")}


async def in_clear(database: Database) -> list[tuple[UUID, PersonalColumn]]:
    """(tenant, column) where something is stored in clear."""
    found: list[tuple[UUID, PersonalColumn]] = []
    async with database.platform_session("migrate: what an older version stored in clear") as session:
        for entry in columns():
            if (
                entry.personal.sealed
                and entry.subject.kind in ("contact", "thread")
                and not entry.subject.via
            ):
                rows = await session.scalars(
                    text(
                        f"select distinct tenant_id from {entry.table} where substring({entry.column} from 1 for 1) = {_CLEAR}"
                    )
                )
                found += [(tenant_id, entry) for tenant_id in rows]
    return found


async def seal_leftovers(
    database: Database, keyring: Keyring | None, progress: Callable[[str, int], None] | None = None
) -> int:
    """Seal everything that is in clear; number of values.

    Args:
        keyring: None where no master key is configured, which is an error only where there is something to seal.
        progress: called with (column, values sealed so far).

    Raises:
        ConfigurationError: there is something to seal and no key to seal it with; nothing was changed.
    """
    left = await in_clear(database)
    if left and keyring is None:
        raise ConfigurationError(
            "The database holds personal data in clear, from a version before encryption, and there is no master key to seal it with. "
            "Make one (python -m server keys generate) and set MASTER_KEYS, MASTER_KEY_FILE or MASTER_KMS. Nothing was sealed."
        )
    done = 0
    for tenant_id, entry in left:
        while batch := await _seal_batch(database, keyring, tenant_id, entry):
            done += batch
            if progress is not None:
                progress(entry.name, done)
    return done


async def _seal_batch(
    database: Database, keyring: Keyring | None, tenant_id: UUID, entry: PersonalColumn
) -> int:
    assert keyring is not None
    key = ("turn_id", "ordinal") if entry.table == "turn_steps" else ("id",)
    async with database.platform_session("migrate: sealing what was stored in clear") as session:
        await session.execute(
            text("select set_config('app.tenant_id', :tenant, true)"), {"tenant": str(tenant_id)}
        )
        cipher = Cipher(keyring, tenant_id, session.connection)
        rows = (
            await session.execute(
                text(f"""
                select {", ".join(dict.fromkeys((*key, entry.subject.column)))}, {entry.column} as value
                       {", kind" if entry.table == "pii_vault" else ""}
                  from {entry.table} where tenant_id = :tenant and substring({entry.column} from 1 for 1) = {_CLEAR}
                 order by {", ".join(key)} limit :limit for update
                """),
                {"tenant": tenant_id, "limit": BATCH},
            )
        ).all()
        for row in rows:
            await _seal_row(session, cipher, tenant_id, entry, key, row)
    return len(rows)


async def _seal_row(
    session: Session, cipher: Cipher, tenant_id: UUID, entry: PersonalColumn, key: tuple[str, ...], row: Any
) -> None:
    clear = bytes(row.value)[1:].decode()
    values = row._mapping
    subject_id: UUID = values[entry.subject.column]
    subject = Subject.contact(subject_id) if entry.subject.kind == "contact" else Subject.thread(subject_id)
    row_id = step_id(row.turn_id, row.ordinal) if entry.table == "turn_steps" else row.id
    changes = {entry.column: await cipher.seal(entry.name, row_id, subject, clear)}
    if entry.name in _BLIND:
        column, kind = _BLIND[entry.name]
        changes[column] = await cipher.blind(kind, clear)
    if entry.table == "pii_vault":
        changes["norm_bi"] = await cipher.blind(row.kind, normalise(row.kind, clear))
    assignments = ", ".join(f"{column} = :{column}" for column in changes)
    where = " and ".join(f"{column} = :key_{column}" for column in key)
    await session.execute(
        text(f"update {entry.table} set {assignments} where tenant_id = :tenant and {where}"),
        {**changes, "tenant": tenant_id, **{f"key_{column}": values[column] for column in key}},
    )
