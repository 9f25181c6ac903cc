"""Signed-in sessions, refresh tokens, and tokens that are good once. For identity sessions; tokens are known by their SHA-256."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from storage.ids import new_id
from storage.sql import Session, text
from storage.tenancy import rowcount


@dataclass(frozen=True)
class Standing:
    """Everything that decides what a session may do, in one row.

    Attributes:
        current: the token that was shown is the session's newest; False within seconds after a renewal.
        session_security: the account's security version when the session began; another one now ends it.
        rights: the member's rights version now; ``session_rights`` the one that the cookie was made under.
        permissions: of the role, or of the impersonation.
    """

    session_id: UUID
    account_id: UUID
    tenant_id: UUID | None
    kind: str
    current: bool
    amr: tuple[str, ...]
    authenticated_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    revoked: bool
    session_security: int
    account_security: int
    account_state: str
    email_verified: bool
    has_second_factor: bool
    tenant_state: str | None
    tenant_slug: str | None
    factor_required: bool
    member_state: str | None
    role: str | None
    permissions: tuple[str, ...]
    rights: int | None
    session_rights: int
    impersonation_id: UUID | None
    reason: str | None
    now: datetime


_STANDING = """
    select s.id as session_id, s.account_id, s.tenant_id, s.kind, {current} as current, s.amr, s.authenticated_at, s.last_seen_at,
           s.expires_at, s.revoked_at is not null as revoked, s.security_version as session_security,
           a.security_version as account_security, a.state as account_state, a.email_verified_at is not null as email_verified,
           a.totp_confirmed_at is not null or exists (select from passkeys p where p.account_id = a.id) as has_second_factor,
           t.state as tenant_state, t.slug as tenant_slug,
           coalesce((t.settings ->> 'require_second_factor')::boolean, false) as factor_required,
           case when i.id is null then m.state when i.state = 'approved' and i.expires_at > clock_timestamp() then 'active' end
             as member_state,
           case when i.id is null then r.key else 'impersonation' end as role,
           coalesce(case when i.id is null then r.permissions else i.permissions end, '{{}}') as permissions,
           case when i.id is null then m.rights_version else s.rights_version end as rights,
           s.rights_version as session_rights, s.impersonation_id, i.reason, clock_timestamp() as now
      from sessions s join accounts a on a.id = s.account_id left join tenants t on t.id = s.tenant_id
      left join members m on m.account_id = s.account_id and m.tenant_id = s.tenant_id
      left join roles r on r.tenant_id = m.tenant_id and r.id = m.role_id
      left join impersonations i on i.id = s.impersonation_id
     where {where}
"""
_BY_TOKEN = _STANDING.format(
    current="s.token_hash = :hash",
    where="(s.token_hash = :hash or (s.previous_hash = :hash and s.renewed_at > clock_timestamp() - interval '10 s'))",
)
_BY_ID = _STANDING.format(current="true", where="s.id = :id")


async def by_token(session: Session, token_hash: bytes) -> Standing | None:
    """What a browser's cookie stands for."""
    return _standing((await session.execute(text(_BY_TOKEN), {"hash": token_hash})).one_or_none())


async def by_id(session: Session, session_id: UUID) -> Standing | None:
    """What an access token's ``sid`` stands for."""
    return _standing((await session.execute(text(_BY_ID), {"id": session_id})).one_or_none())


def _standing(row: Any) -> Standing | None:
    if row is None:
        return None
    return Standing(
        **{**row._mapping, "amr": tuple(row.amr), "permissions": tuple(row.permissions)},
    )


async def begin(
    session: Session,
    *,
    account_id: UUID,
    tenant_id: UUID | None,
    kind: str,
    token_hash: bytes | None,
    security_version: int,
    amr: list[str],
    life: timedelta,
    device: str,
    place: str,
    impersonation_id: UUID | None = None,
) -> UUID:
    """A new session; its id is the ``sid`` of access tokens."""
    created: UUID = await session.scalar(
        text("""
        insert into sessions (id, account_id, tenant_id, kind, token_hash, security_version, amr, expires_at, device, place,
                              impersonation_id, rights_version)
        values (:id, :account, :tenant, :kind, :hash, :security, :amr, clock_timestamp() + :life, :device, :place, :impersonation,
                coalesce((select rights_version from members where account_id = :account and tenant_id = :tenant), 1))
        returning id
        """),
        {
            "id": new_id(),
            "account": account_id,
            "tenant": tenant_id,
            "kind": kind,
            "hash": token_hash,
            "security": security_version,
            "amr": amr,
            "life": life,
            "device": device[:200],
            "place": place[:100],
            "impersonation": impersonation_id,
        },
    )
    return created


async def renew(
    session: Session,
    session_id: UUID,
    token_hash: bytes | None,
    *,
    shown: bytes | None = None,
    tenant_id: UUID | None = None,
    amr: list[str] | None = None,
) -> bool:
    """Give a session a new token, and with it a new tenant or new proofs. The old token lives some seconds on.

    Args:
        shown: the token's hash that the caller has; where it is not the newest any more somebody else has renewed it, and
            nothing is done (False).
    """
    result = await session.execute(
        text("""
        update sessions s set previous_hash = token_hash, token_hash = :hash, renewed_at = clock_timestamp(),
               tenant_id = coalesce(:tenant, tenant_id), amr = coalesce(cast(:amr as text[]), amr),
               authenticated_at = case when cast(:amr as text[]) is null then authenticated_at else clock_timestamp() end,
               rights_version = coalesce((select rights_version from members m
                                           where m.account_id = s.account_id and m.tenant_id = coalesce(:tenant, s.tenant_id)), 1)
         where id = :id and revoked_at is null and (cast(:shown as bytea) is null or token_hash = :shown)
        """),
        {"id": session_id, "hash": token_hash, "shown": shown, "tenant": tenant_id, "amr": amr},
    )
    return rowcount(result) == 1


async def add_method(session: Session, session_id: UUID, amr: list[str]) -> None:
    """Another proof was shown in a session that stays as it is."""
    await session.execute(
        text("update sessions set amr = :amr, authenticated_at = clock_timestamp() where id = :id"),
        {"id": session_id, "amr": amr},
    )


async def touch(session: Session, session_id: UUID) -> None:
    await session.execute(
        text("update sessions set last_seen_at = clock_timestamp() where id = :id"), {"id": session_id}
    )


async def revoke(session: Session, session_id: UUID, reason: str, *, account_id: UUID | None = None) -> bool:
    """End a session; False where there is none (or not this account's) or it had ended."""
    result = await session.execute(
        text("""
        update sessions set revoked_at = clock_timestamp(), revoked_reason = :reason
         where id = :id and revoked_at is null and (cast(:account as uuid) is null or account_id = :account)
        """),
        {"id": session_id, "reason": reason, "account": account_id},
    )
    return rowcount(result) == 1


async def revoke_all(
    session: Session, account_id: UUID, reason: str, *, but: UUID | None = None
) -> list[UUID]:
    """End all sessions of a person, but one; the ids of those that ended."""
    rows = await session.execute(
        text("""
        update sessions set revoked_at = clock_timestamp(), revoked_reason = :reason
         where account_id = :account and revoked_at is null and (cast(:but as uuid) is null or id <> :but) returning id
        """),
        {"account": account_id, "reason": reason, "but": but},
    )
    return [row.id for row in rows]


async def of_account(session: Session, account_id: UUID) -> list[dict[str, Any]]:
    """Sessions that are open, the newest first."""
    rows = await session.execute(
        text("""
        select s.id, s.kind, s.device, s.place, s.amr, s.created_at, s.last_seen_at, s.expires_at, t.slug as tenant
          from sessions s left join tenants t on t.id = s.tenant_id join accounts a on a.id = s.account_id
         where s.account_id = :account and s.revoked_at is null and s.expires_at > clock_timestamp()
           and s.security_version = a.security_version order by s.created_at desc limit 200
        """),
        {"account": account_id},
    )
    return [dict(row._mapping) for row in rows]


async def known_device(session: Session, account_id: UUID, device: str, place: str) -> bool:
    """Whether this person has signed in before with such a device from such a place."""
    return bool(
        await session.scalar(
            text(
                "select exists (select from sessions where account_id = :account and device = :device and place = :place)"
            ),
            {"account": account_id, "device": device[:200], "place": place[:100]},
        )
    )


# --- refresh tokens: a family is a session --------------------------------------------------------------------------


class Rotation(Enum):
    """What became of a refresh token that was shown."""

    ROTATED = "rotated"
    UNKNOWN = "unknown"
    RECENT = (
        "recent"  # the one before the newest, rotated seconds ago: a lost answer or two tabs, not a thief
    )
    REUSED = "reused"


async def add_refresh(session: Session, session_id: UUID, generation: int, token_hash: bytes) -> None:
    await session.execute(
        text(
            "insert into refresh_tokens (id, session_id, generation, token_hash) values (:id, :session, :generation, :hash)"
        ),
        {"id": new_id(), "session": session_id, "generation": generation, "hash": token_hash},
    )


async def rotate_refresh(
    session: Session, shown: bytes, fresh: bytes, *, grace: timedelta
) -> tuple[Rotation, UUID | None]:
    """Exchange a refresh token for the next of its family: (what happened, the session)."""
    used = (
        await session.execute(
            text("""
            update refresh_tokens set used_at = clock_timestamp() where token_hash = :hash and used_at is null
            returning session_id, generation
            """),
            {"hash": shown},
        )
    ).one_or_none()
    if used is not None:
        await add_refresh(session, used.session_id, used.generation + 1, fresh)
        return Rotation.ROTATED, used.session_id
    old = (
        await session.execute(
            text("""
            select session_id, used_at > clock_timestamp() - :grace
                   and generation = (select max(generation) - 1 from refresh_tokens n where n.session_id = o.session_id) as recent
              from refresh_tokens o where token_hash = :hash
            """),
            {"hash": shown, "grace": grace},
        )
    ).one_or_none()
    if old is None:
        return Rotation.UNKNOWN, None
    return (Rotation.RECENT if old.recent else Rotation.REUSED), old.session_id


# --- tokens that are good once --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OneTime:
    id: UUID
    account_id: UUID | None
    tenant_id: UUID | None
    payload: dict[str, Any]
    tries: int


async def add_one_time(
    session: Session,
    purpose: str,
    token_hash: bytes,
    life: timedelta,
    *,
    account_id: UUID | None = None,
    tenant_id: UUID | None = None,
    payload: dict[str, Any] | None = None,
) -> UUID:
    """Store a token; earlier ones of the same purpose and account stay good until they expire or are used."""
    created: UUID = await session.scalar(
        text("""
        insert into one_time_tokens (id, purpose, token_hash, expires_at, account_id, tenant_id, payload)
        values (:id, :purpose, :hash, clock_timestamp() + :life, :account, :tenant, cast(:payload as jsonb)) returning id
        """),
        {
            "id": new_id(),
            "purpose": purpose,
            "hash": token_hash,
            "life": life,
            "account": account_id,
            "tenant": tenant_id,
            "payload": json.dumps(payload or {}, default=str),
        },
    )
    return created


async def use_one_time(session: Session, purpose: str, token_hash: bytes) -> OneTime | None:
    """Take a token: it is used with this transaction. None where it is unknown, used, expired, or for something else."""
    row = (
        await session.execute(
            text("""
            update one_time_tokens set used_at = clock_timestamp()
             where token_hash = :hash and purpose = :purpose and used_at is null and expires_at > clock_timestamp()
            returning id, account_id, tenant_id, payload, tries
            """),
            {"hash": token_hash, "purpose": purpose},
        )
    ).one_or_none()
    return None if row is None else OneTime(**row._mapping)


async def try_one_time(session: Session, purpose: str, token_hash: bytes, most: int) -> OneTime | None:
    """Look at a token that may be tried some times (a challenge), and count the try; None as above, or when tried too often."""
    row = (
        await session.execute(
            text("""
            update one_time_tokens set tries = tries + 1
             where token_hash = :hash and purpose = :purpose and used_at is null and expires_at > clock_timestamp() and tries < :most
            returning id, account_id, tenant_id, payload, tries
            """),
            {"hash": token_hash, "purpose": purpose, "most": most},
        )
    ).one_or_none()
    return None if row is None else OneTime(**row._mapping)


async def set_payload(session: Session, token_id: UUID, payload: dict[str, Any]) -> None:
    await session.execute(
        text("update one_time_tokens set payload = cast(:payload as jsonb) where id = :id"),
        {"id": token_id, "payload": json.dumps(payload, default=str)},
    )


async def end_one_time(session: Session, token_id: UUID) -> bool:
    """Use a token up by its id; False where another request was faster."""
    result = await session.execute(
        text(
            "update one_time_tokens set used_at = clock_timestamp() where id = :id and used_at is null and expires_at > clock_timestamp()"
        ),
        {"id": token_id},
    )
    return rowcount(result) == 1


async def drop_one_time(session: Session, account_id: UUID, purpose: str) -> None:
    """End all open tokens of a purpose: after a password was reset, older links must not work."""
    await session.execute(
        text(
            "update one_time_tokens set used_at = clock_timestamp() where account_id = :account and purpose = :purpose and used_at is null"
        ),
        {"account": account_id, "purpose": purpose},
    )
