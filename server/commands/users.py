"""`python -m server users`: the first owner of a business, the first operators, and people who lost their second factor. Whoever may
run commands on the machine may do this; it is in the audit log.
"""

import argparse
import getpass
import sys
from uuid import UUID

from server.auth.password_policy import PasswordPolicy
from server.auth.passwords import hash_password
from server.commands.environment import adopt_environment
from server.deps import make_keyring
from storage.errors import NotFound, ValidationFailed
from storage.repositories import accounts, audit, directory, sessions
from storage.repositories.accounts import Account
from storage.settings import StorageSettings
from storage.tenancy import Database, TenantContext

_ACTOR = "user:command-line"


async def run(arguments: argparse.Namespace) -> int:
    """Carry an action out.

    Raises:
        NotFound: no such tenant, role or person.
        ValidationFailed: the password is not good enough.
    """
    adopt_environment()
    database = Database(StorageSettings(), make_keyring(), "users")
    try:
        if arguments.action == "add":
            return await _add(database, arguments)
        return await _reset(database, arguments.email)
    finally:
        await database.aclose()


def _password() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Password: ")
    return sys.stdin.readline().rstrip("\n")


async def _add(database: Database, arguments: argparse.Namespace) -> int:
    email: str = arguments.email
    async with database.platform_session("users add: which tenant is meant") as session:
        tenant_id = (await directory.tenant_by_slug(session, arguments.tenant)).id
    async with database.identity_session() as session:
        role_id = await accounts.role_id(session, tenant_id, arguments.role)
        known = await accounts.by_email(session, email)
    hashed = None
    if known is not None and known.email_verified_at is None:
        # Anybody may have opened it with this address; a member must be the one who reads its mail.
        raise ValidationFailed(f"{email} has opened an account and not verified the address yet.")
    if known is None:
        if "@" not in email:
            raise ValidationFailed(f"{email!r} is no e-mail address.")
        password = _password()
        verdict = await PasswordPolicy().check(password, [email, arguments.name])
        if verdict.reasons:
            raise ValidationFailed(" ".join(reason.sentence for reason in verdict.reasons))
        hashed = hash_password(password)
    joined = await ensure_member(database, tenant_id, role_id, email, arguments.name, hashed)
    print(
        f"{email} is a member of {arguments.tenant} as {arguments.role}"
        if joined
        else f"{email} was a member of {arguments.tenant} before; nothing was changed"
    )
    return 0


async def ensure_member(
    database: Database, tenant_id: UUID, role_id: UUID, email: str, name: str, password_hash: str | None
) -> bool:
    """Make a person a member of a tenant, and the person where nobody has the address; False where they were one."""
    async with database.identity_session(tenant_id) as session:
        if password_hash is not None:
            await accounts.add(
                session, email=email, name=name, password_hash=password_hash, language="en", verified=True
            )
        account: Account | None = await accounts.by_email(session, email)
        if account is None:
            raise NotFound(f"Nobody has the address {email!r}.")
        joined = await accounts.join(session, tenant_id, account, role_id)
        if joined:
            context = TenantContext(tenant_id, _ACTOR)
            await audit.record(session, context, "member.added", "account", account.id, role=str(role_id))
    return joined


async def _reset(database: Database, email: str) -> int:
    async with database.identity_session() as session:
        account = await accounts.by_email(session, email)
        if account is None:
            raise NotFound(f"Nobody has the address {email!r}.")
        await accounts.set_totp(session, account.id, None, confirmed=False)
        await accounts.replace_recovery_codes(session, account.id, [])
        for passkey in await accounts.passkeys(session, account.id):
            await accounts.remove_passkey(session, account.id, passkey.id)
        await sessions.revoke_all(session, account.id, "second factor reset")
        context = TenantContext(UUID(int=0), _ACTOR)
        await audit.record(session, context, "second_factor.reset", "account", account.id)
    print(f"{email} has no second factor any more; all sessions have ended")
    return 0
