"""Second factors: codes from an app (TOTP), recovery codes, passkeys. Setting them up, and proving with them."""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from server.auth import passkeys, recovery, totp
from server.auth.caller import Caller
from server.auth.identity import Identity, Where
from server.auth.rights import require_own_proof
from server.auth.tokens import new_opaque, opaque_digest
from storage.crypto.cipher import Subject
from storage.errors import Conflict, Unauthenticated, ValidationFailed
from storage.repositories import accounts, sessions
from storage.repositories.accounts import Account
from storage.sql import Session

CEREMONY_LIFE = timedelta(seconds=passkeys.CHALLENGE_SECONDS)
PASSKEY_PREFIX = "pky"
MAX_PASSKEYS = 20
_SECRET = "accounts.totp_secret"  # noqa: S105  # the column's name


@dataclass(frozen=True)
class Proof:
    """One of these. ``challenge`` names the passkey ceremony that ``passkey`` answers, where it is not part of a sign-in."""

    code: str | None = None
    recovery_code: str | None = None
    passkey: dict[str, Any] | None = None
    password: str | None = None
    challenge: str | None = None

    @property
    def given(self) -> int:
        return sum(
            value is not None for value in (self.code, self.recovery_code, self.passkey, self.password)
        )


async def offered(
    identity: Identity, session: Session, account: Account, where: Where
) -> tuple[list[str], dict[str, Any] | None, dict[str, Any]]:
    """(names of the factors that the person has, options for the browser's passkey call, what to remember until the answer)."""
    names = ["totp"] if account.totp_confirmed_at else []
    if await accounts.recovery_codes_left(session, account.id):
        names.append("recovery_code")
    if not account.passkeys:
        return names, None, {}
    stored = await accounts.passkeys(session, account.id)
    ceremony = identity.passkeys(where.base_url).start_authentication(
        [bytes(one.credential_id) for one in stored]
    )
    return ["passkey", *names], ceremony.options, {"passkey": b64encode(ceremony.challenge).decode()}


async def proven(
    identity: Identity,
    session: Session,
    account: Account,
    proof: Proof,
    state: dict[str, Any],
    where: Where,
) -> str | None:
    """The authentication method (RFC 8176) that the proof shows, None where it shows nothing. A code is used up by it."""
    if proof.code is not None and account.totp_secret is not None and account.totp_confirmed_at is not None:
        secret = await session.cipher.open(_SECRET, account.id, account.totp_secret)
        step = totp.verify(secret or "", proof.code, datetime.now(UTC), account.totp_last_step)
        used = step is not None and await accounts.use_totp_step(session, account.id, step)
        return "otp" if used else None
    if proof.recovery_code is not None:
        digest = recovery.digest_of(proof.recovery_code)
        used = digest is not None and await accounts.use_recovery_code(session, account.id, digest)
        return "rec" if used else None
    if proof.passkey is not None and "passkey" in state:
        wanted = passkeys.credential_id(proof.passkey)
        found = next(
            (
                one
                for one in await accounts.passkeys(session, account.id)
                if bytes(one.credential_id) == wanted
            ),
            None,
        )
        if found is None:
            return None
        try:
            count = identity.passkeys(where.base_url).finish_authentication(
                proof.passkey, b64decode(state["passkey"]), bytes(found.public_key), found.sign_count
            )
        except Unauthenticated:
            return None
        await accounts.used_passkey(session, found.id, count)
        return "hwk"
    return None


@dataclass(frozen=True)
class TotpSetup:
    """For the person's app: the secret, and the address that a QR code shows. Shown once."""

    secret: str
    uri: str


async def start_totp(identity: Identity, caller: Caller) -> TotpSetup:
    """A new secret, which counts only when a code of it was shown.

    Raises:
        Conflict: one is set up already.
    """
    require_own_proof(caller)
    assert caller.account_id is not None
    async with identity.database.identity_session() as session:
        account = await accounts.by_id(session, caller.account_id)
        if account.totp_confirmed_at is not None:
            raise Conflict("An app is set up already. Remove it first.")
        secret = totp.new_secret()
        sealed = await session.cipher.seal(_SECRET, account.id, Subject.tenant(), secret)
        await accounts.set_totp(session, account.id, sealed, confirmed=False)
    return TotpSetup(secret, totp.provisioning_uri(secret, account.email, "AI Secretary"))


async def confirm_totp(identity: Identity, caller: Caller, code: str, where: Where) -> list[str]:
    """Switch it on; returns recovery codes, the only time that they can be seen.

    Raises:
        ValidationFailed: the code is wrong.
        Conflict: nothing was begun.
    """
    require_own_proof(caller)
    assert caller.account_id is not None
    async with identity.database.identity_session() as session:
        account = await accounts.by_id(session, caller.account_id)
        if account.totp_secret is None or account.totp_confirmed_at is not None:
            raise Conflict("Begin with POST /api/v1/auth/totp.")
        secret = await session.cipher.open(_SECRET, account.id, account.totp_secret)
        step = totp.verify(secret or "", code, datetime.now(UTC), None)
        if step is None:
            raise ValidationFailed("The code is wrong. Is the clock of your device right?", field="code")
        await accounts.set_totp(session, account.id, account.totp_secret, confirmed=True, step=step)
        codes = await _new_recovery_codes(session, account.id)
        await _proven_now(identity, session, caller, "otp")
        await _changed(identity, session, account, "an app for codes was added", "totp.added", where)
    identity.principals.forget_account(account.id)
    return codes


async def remove_totp(identity: Identity, caller: Caller, where: Where) -> None:
    """Switch it off (after a step-up)."""
    require_own_proof(caller)
    assert caller.account_id is not None
    async with identity.database.identity_session() as session:
        account = await accounts.by_id(session, caller.account_id)
        await accounts.set_totp(session, account.id, None, confirmed=False)
        if not account.passkeys:
            await accounts.replace_recovery_codes(session, account.id, [])
        await _changed(identity, session, account, "the app for codes was removed", "totp.removed", where)
    identity.principals.forget_account(account.id)


async def renew_recovery_codes(identity: Identity, caller: Caller, where: Where) -> list[str]:
    """New codes in place of all old ones (after a step-up).

    Raises:
        Conflict: there is no second factor that they could stand in for.
    """
    require_own_proof(caller)
    assert caller.account_id is not None
    async with identity.database.identity_session() as session:
        account = await accounts.by_id(session, caller.account_id)
        if not account.has_second_factor:
            raise Conflict("Set up a second factor first.")
        codes = await _new_recovery_codes(session, account.id)
        await _changed(
            identity, session, account, "new recovery codes were made", "recovery_codes.renewed", where
        )
    return codes


async def _new_recovery_codes(session: Session, account_id: UUID) -> list[str]:
    codes = recovery.new_codes()
    await accounts.replace_recovery_codes(session, account_id, [code.digest for code in codes])
    return [code.clear for code in codes]


async def start_passkey(identity: Identity, caller: Caller, where: Where) -> tuple[str, dict[str, Any]]:
    """(challenge token, options for ``navigator.credentials.create``)."""
    require_own_proof(caller)
    assert caller.account_id is not None
    token = new_opaque(PASSKEY_PREFIX)
    async with identity.database.identity_session() as session:
        account = await accounts.by_id(session, caller.account_id)
        stored = await accounts.passkeys(session, account.id)
        if len(stored) >= MAX_PASSKEYS:
            raise Conflict(f"{MAX_PASSKEYS} passkeys are possible. Remove one first.")
        ceremony = identity.passkeys(where.base_url).start_registration(
            account.id.bytes, account.email, account.name, [bytes(one.credential_id) for one in stored]
        )
        await sessions.add_one_time(
            session,
            "passkey",
            token.digest,
            CEREMONY_LIFE,
            account_id=account.id,
            payload={"passkey": b64encode(ceremony.challenge).decode()},
        )
    return token.clear, ceremony.options


async def start_step_up(
    identity: Identity, caller: Caller, where: Where
) -> tuple[str | None, list[str], dict[str, Any] | None]:
    """(challenge token for a passkey, factors that are possible, options for the browser)."""
    assert caller.account_id is not None
    async with identity.database.identity_session() as session:
        account = await accounts.by_id(session, caller.account_id)
        if not account.has_second_factor:
            return None, ["password"], None
        names, options, state = await offered(identity, session, account, where)
        if options is None:
            return None, names, None
        token = new_opaque(PASSKEY_PREFIX)
        await sessions.add_one_time(
            session, "step_up", token.digest, CEREMONY_LIFE, account_id=account.id, payload=state
        )
    return token.clear, names, options


async def add_passkey(
    identity: Identity, caller: Caller, challenge: str, answer: dict[str, Any], name: str, where: Where
) -> tuple[UUID, list[str]]:
    """Register what the browser answered: (id, recovery codes where it is the first second factor).

    Raises:
        ValidationFailed: the ceremony is over, or the answer does not fit it.
        Conflict: this device is registered.
    """
    require_own_proof(caller)
    assert caller.account_id is not None
    digest = opaque_digest(PASSKEY_PREFIX, challenge)
    async with identity.database.identity_session() as session:
        used = await sessions.use_one_time(session, "passkey", digest) if digest else None
        if used is None or used.account_id != caller.account_id:
            raise ValidationFailed("This registration has expired. Start again.", field="challenge")
        made = identity.passkeys(where.base_url).finish_registration(
            answer, b64decode(used.payload["passkey"])
        )
        account = await accounts.by_id(session, caller.account_id)
        passkey_id = await accounts.add_passkey(
            session,
            account.id,
            credential_id=made.credential_id,
            public_key=made.public_key,
            sign_count=made.sign_count,
            name=name,
        )
        codes = [] if account.has_second_factor else await _new_recovery_codes(session, account.id)
        await _proven_now(identity, session, caller, "hwk")
        await _changed(identity, session, account, "a passkey was added", "passkey.added", where)
    identity.principals.forget_account(account.id)
    return passkey_id, codes


async def remove_passkey(identity: Identity, caller: Caller, passkey_id: UUID, where: Where) -> None:
    """Remove one (after a step-up).

    Raises:
        NotFound: none of this person's.
    """
    require_own_proof(caller)
    assert caller.account_id is not None
    async with identity.database.identity_session() as session:
        await accounts.remove_passkey(session, caller.account_id, passkey_id)
        account = await accounts.by_id(session, caller.account_id)
        if not account.has_second_factor:
            await accounts.replace_recovery_codes(session, account.id, [])  # they stand in for nothing now
        await _changed(identity, session, account, "a passkey was removed", "passkey.removed", where)
    identity.principals.forget_account(account.id)


async def _proven_now(identity: Identity, session: Session, caller: Caller, method: str) -> None:
    """Whoever has just shown a factor need not show it again to use their role."""
    assert caller.session_id is not None
    assert caller.standing is not None
    amr = sorted({*caller.standing.amr, method})
    await sessions.add_method(session, caller.session_id, amr)


async def _changed(
    identity: Identity, session: Session, account: Account, change: str, action: str, where: Where
) -> None:
    """Each change of a factor is told by mail and is in the audit log."""
    key = f"{account.id}:{datetime.now(UTC).timestamp()}"
    await identity.tell(session, account, "mfa_changed", key, where, change=change)
    await identity.record(session, account.id, action, where)
