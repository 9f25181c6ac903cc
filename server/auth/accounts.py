"""Opening an account, and getting back into one. The answers are the same for people we know and people we do not: what differs is
in the mail, which only the owner of the address reads.
"""

from datetime import UTC, datetime
from uuid import UUID

from server.auth.caller import Caller
from server.auth.identity import RESET_LIFE, VERIFY_LIFE, Identity, Where
from server.auth.lockout import TooManyAttempts
from server.auth.passwords import Busy
from server.auth.tenants import add_tenant
from server.auth.tokens import opaque_digest
from storage.errors import Forbidden, Unauthenticated, ValidationFailed
from storage.permissions import OWNER
from storage.repositories import accounts, sessions
from storage.repositories.accounts import Account
from storage.sql import Session

_EXPIRED = "This link has expired or was used. Ask for a new one."
_TRIES = 5


async def sign_up(
    identity: Identity,
    *,
    email: str,
    password: str,
    name: str,
    business: str,
    language: str,
    time_zone: str,
    where: Where,
) -> None:
    """Open an account and a business of its own; both wait until the address is verified.

    Raises:
        Forbidden: this installation takes nobody in.
        ValidationFailed: the password is not good enough.
        TooManyAttempts: too many mails were asked for.
    """
    if not identity.settings.sign_up:
        raise Forbidden("New businesses cannot be opened here. Ask the operator.")
    await _count_mail(identity, email, where)
    await identity.require_good_password(password, [email, name, business], where)
    hashed = await identity.passwords.hash(password, where.ip)  # also for known people: it takes as long
    async with identity.database.identity_session() as session:
        created = await accounts.add(
            session, email=email, name=name, password_hash=hashed, language=language, verified=False
        )
        account = await accounts.by_email(session, email)
        assert account is not None
        if created is None:
            await _send_reset(identity, session, account, where)
            return
        tenant_id = await add_tenant(session, business, language, time_zone, state="pending")
        owner = await accounts.role_id(session, tenant_id, OWNER)
        await accounts.join(session, tenant_id, account, owner)
        await _send_verification(identity, session, account, where)
        await identity.record(session, account.id, "account.created", where, tenant_id=tenant_id)


async def _send_verification(identity: Identity, session: Session, account: Account, where: Where) -> None:
    await identity.send_link(
        session,
        "verify_email",
        VERIFY_LIFE,
        where,
        account=account,
        recipient=account.email,
        language=account.language,
        values={"name": account.name},
    )


async def _send_reset(identity: Identity, session: Session, account: Account, where: Where) -> None:
    """The one link for everybody whose address has an account, also where it is not verified yet: whoever opened it with that address
    chose its password, and need not be the one who reads the mail. The link verifies the address too.
    """
    if account.state != "active":
        return
    await identity.send_link(
        session,
        "reset_password",
        RESET_LIFE,
        where,
        account=account,
        recipient=account.email,
        language=account.language,
        values={"name": account.name},
    )


async def verify_email(identity: Identity, token: str, where: Where) -> None:
    """The link of the mail: the address is the person's, and their business opens.

    Raises:
        ValidationFailed: expired or used.
    """
    digest = opaque_digest("vfy", token)
    async with identity.database.identity_session() as session:
        used = await sessions.use_one_time(session, "verify_email", digest) if digest else None
        if used is None or used.account_id is None:
            raise ValidationFailed(_EXPIRED, field="token")
        await accounts.verify_email(session, used.account_id)
        opened = await accounts.activate_pending(session, used.account_id)
        await identity.record(
            session,
            used.account_id,
            "account.email_verified",
            where,
            tenant_id=opened[0] if opened else None,
        )
    identity.principals.forget_account(used.account_id)


async def request_link(identity: Identity, email: str, where: Where) -> None:
    """Send the link that gets somebody back in: it sets a password, and verifies the address. Nothing for unknown people.

    Raises:
        TooManyAttempts: too many were asked for.
    """
    await _count_mail(identity, email, where)
    async with identity.database.identity_session() as session:
        account = await accounts.by_email(session, email)
        if account is not None:
            await _send_reset(identity, session, account, where)


async def _count_mail(identity: Identity, email: str, where: Where) -> None:
    """A mailbox must not be flooded: each request for a mail counts like a failed attempt.

    Raises:
        TooManyAttempts: too many were asked for.
    """
    key = identity.guard.account_key("reset", email)
    if delay := await identity.guard.before(key, where.ip):
        raise TooManyAttempts(delay.seconds)
    await identity.guard.failed(key, where.ip)


async def reset_password(identity: Identity, token: str, password: str, where: Where) -> None:
    """Set a new password by the link of a mail. All sessions end; a second factor is still asked for at the next sign-in.

    Raises:
        ValidationFailed: expired or used, or the password is not good enough; the link then stays good for another try.
    """
    digest = opaque_digest("rst", token)
    async with identity.database.identity_session() as session:
        found = await sessions.try_one_time(session, "reset_password", digest, _TRIES) if digest else None
        account = await accounts.by_id(session, found.account_id) if found and found.account_id else None
    if found is None or account is None:
        raise ValidationFailed(_EXPIRED, field="token")
    await identity.require_good_password(password, [account.email, account.name], where)
    hashed = await identity.passwords.hash(password, where.ip)
    async with identity.database.identity_session() as session:
        if not await sessions.end_one_time(session, found.id):
            raise ValidationFailed(_EXPIRED, field="token")
        await accounts.set_password(session, account.id, hashed, end_proofs=True)
        await accounts.verify_email(session, account.id)
        await accounts.activate_pending(session, account.id)
        await _drop_tokens(session, account.id)
        await sessions.revoke_all(session, account.id, "password reset")
        await _password_changed(identity, session, account, "password.reset", where)
    identity.principals.forget_account(account.id)


async def change_password(identity: Identity, caller: Caller, current: str, new: str, where: Where) -> None:
    """Set a new password, knowing the old one. All other sessions end.

    Raises:
        Unauthenticated: the current password is wrong.
        ValidationFailed: the new one is not good enough.
        TooManyAttempts: later.
    """
    assert caller.account_id is not None
    assert caller.session_id is not None
    async with identity.database.identity_session() as session:
        account = await accounts.by_id(session, caller.account_id)
    key = identity.guard.account_key(account.email)
    if delay := await identity.guard.before(key, where.ip, where.device_cookie):
        raise TooManyAttempts(delay.seconds)
    try:
        right = await identity.passwords.verify(account.password_hash, current, where.ip)
    except Busy:
        await identity.guard.withdrawn(key, where.ip, where.device_cookie)
        raise
    if not right:
        await identity.guard.failed(key, where.ip, where.device_cookie)
        raise Unauthenticated("The current password is wrong.")
    await identity.guard.succeeded(key, where.ip, where.device_cookie)
    await identity.require_good_password(new, [account.email, account.name], where)
    hashed = await identity.passwords.hash(new, where.ip)
    async with identity.database.identity_session() as session:
        await accounts.set_password(session, account.id, hashed, end_proofs=False)
        await sessions.revoke_all(session, account.id, "password changed", but=caller.session_id)
        await _drop_tokens(session, account.id)
        await _password_changed(identity, session, account, "password.changed", where)
    identity.principals.forget_account(account.id)


async def _drop_tokens(session: Session, account_id: UUID) -> None:
    """With the old password end links to set another one, and sign-ins that have shown it and wait for the second factor."""
    for purpose in ("reset_password", "second_factor"):
        await sessions.drop_one_time(session, account_id, purpose)


async def _password_changed(
    identity: Identity, session: Session, account: Account, action: str, where: Where
) -> None:
    key = f"{account.id}:{datetime.now(UTC).timestamp()}"
    await identity.tell(session, account, "password_changed", key, where)
    await identity.record(session, account.id, action, where)


# --- invitations ----------------------------------------------------------------------------------------------------


async def accept_invitation(
    identity: Identity, token: str, name: str | None, password: str | None, language: str, where: Where
) -> str:
    """Become a member; opens an account where the address has none. Returns the business's short name.

    The link came by mail, so the address is the person's. Whoever has an account already needs no password here, and
    none is changed; but where its address was never verified anybody may have opened it, so that one is taken over with a new
    name and password, and whatever was set up in it ends.

    Raises:
        ValidationFailed: expired or used; name or password is missing or not good enough (the link then stays good).
    """
    digest = opaque_digest("inv", token)
    async with identity.database.identity_session() as session:
        found = await sessions.try_one_time(session, "invitation", digest, 20) if digest else None
        if found is None or found.tenant_id is None:
            raise ValidationFailed(_EXPIRED, field="token")
        email = found.payload["email"]
        account = await accounts.by_email(session, email)
    hashed: str | None = None
    if account is None or account.email_verified_at is None:
        if not name or not password:
            raise ValidationFailed(
                "Choose a name and a password.", fields=[{"field": "password", "message": "missing"}]
            )
        await identity.require_good_password(password, [email, name], where)
        hashed = await identity.passwords.hash(password, where.ip)
    async with identity.database.identity_session() as session:
        if not await sessions.end_one_time(session, found.id):
            raise ValidationFailed(_EXPIRED, field="token")
        if account is None:
            await accounts.add(
                session, email=email, name=name or "", password_hash=hashed, language=language, verified=True
            )
            account = await accounts.by_email(session, email)
            assert account is not None
        elif hashed is not None:
            await _take_over(session, account.id, name or "", hashed)
            account = await accounts.by_id(session, account.id)
        await accounts.verify_email(session, account.id)
        role_id = UUID(found.payload["role_id"])
        if not await accounts.has_role(session, found.tenant_id, role_id):
            raise ValidationFailed(
                "The role that you were invited for does not exist any more. Ask for a new invitation.",
                field="token",
            )
        await accounts.join(session, found.tenant_id, account, role_id)
        await identity.record(
            session,
            account.id,
            "member.joined",
            where,
            tenant_id=found.tenant_id,
            invited_by=found.payload["by"],
        )
        slugs = {one.tenant_id: one.slug for one in await accounts.memberships(session, account.id)}
        if found.tenant_id not in slugs:  # the role was removed meanwhile
            raise ValidationFailed(_EXPIRED, field="token")
        slug = slugs[found.tenant_id]
    identity.principals.forget_account(account.id)
    return slug


async def _take_over(session: Session, account_id: UUID, name: str, password_hash: str) -> None:
    """Make an account, whose address nobody had verified, the one of whoever reads that address's mail."""
    await accounts.set_profile(session, account_id, name, None)
    await accounts.set_password(session, account_id, password_hash, end_proofs=True)
    await _drop_tokens(session, account_id)
    await sessions.drop_one_time(session, account_id, "verify_email")
    await sessions.revoke_all(session, account_id, "taken over by the address's owner")
