"""What signing in is made of, built once in each API process, and what all its parts share."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from redis.asyncio import Redis

from server.auth.api_keys import ApiKeys
from server.auth.devices import DeviceCookies, country_of, device_name
from server.auth.lockout import Guard, RedisStore
from server.auth.passkeys import Passkeys
from server.auth.password_policy import PasswordPolicy
from server.auth.passwords import Passwords
from server.auth.principals import Principals
from server.auth.settings import AuthSettings
from server.auth.tokens import Tokens, new_opaque
from storage.errors import ValidationFailed
from storage.repositories import audit, mails, sessions
from storage.repositories.accounts import Account
from storage.settings import StorageSettings
from storage.sql import Session
from storage.tenancy import PLATFORM_TENANT, Database, TenantContext, pinned

VERIFY_LIFE = timedelta(hours=24)
RESET_LIFE = timedelta(minutes=15)
INVITATION_LIFE = timedelta(days=7)
_MAIL_PREFIX = {"verify_email": "vfy", "reset_password": "rst", "invitation": "inv"}


@dataclass(frozen=True)
class Where:
    """From where a request comes.

    Attributes:
        ip: the client's, as a trusted proxy says.
        user_agent: the header.
        device_cookie: proves that somebody signed in here before.
        base_url: of this installation, for links in mails.
        session_cookie: which a new sign-in of this browser takes the place of.
    """

    ip: str
    user_agent: str | None
    device_cookie: str | None
    base_url: str
    request_id: str | None
    session_cookie: str | None = None

    @property
    def device(self) -> str:
        return device_name(self.user_agent)


@dataclass(frozen=True)
class Identity:
    """The parts."""

    database: Database
    settings: AuthSettings
    tokens: Tokens
    keys: ApiKeys
    passwords: Passwords
    policy: PasswordPolicy
    guard: Guard
    principals: Principals
    redis: Redis

    def passkeys(self, base_url: str) -> Passkeys:
        """Passkeys belong to the host that people's browsers see."""
        parts = urlsplit(base_url)
        return Passkeys(parts.hostname or "localhost", "AI Secretary", [f"{parts.scheme}://{parts.netloc}"])

    async def place(self, where: Where) -> str:
        """The country of an address, or ``unknown``; the table is read in a thread."""
        return await asyncio.to_thread(country_of, where.ip)

    async def require_good_password(self, password: str, context: list[str], where: Where) -> None:
        """Refuse a new password that is short, common, guessable or made of the person's own words.

        Raises:
            ValidationFailed: with the reasons.
            Busy: too many are being judged.
        """
        verdict = await self.policy.check(password, context, where.ip)
        if verdict.reasons:
            raise ValidationFailed(
                " ".join(reason.sentence for reason in verdict.reasons),
                fields=[
                    {"field": "password", "code": reason.code, "message": reason.sentence}
                    for reason in verdict.reasons
                ],
            )

    async def send_link(
        self,
        session: Session,
        purpose: str,
        life: timedelta,
        where: Where,
        *,
        account: Account | None,
        recipient: str,
        language: str,
        values: Mapping[str, str],
        tenant_id: UUID | None = None,
        payload: dict[str, Any] | None = None,
    ) -> UUID:
        """Store a token that is good once, and the mail that carries it; both or neither. The token's id.

        The token stands behind a ``#``: a browser does not send that to any server, and no proxy's log has it.
        """
        token = new_opaque(_MAIL_PREFIX[purpose])
        token_id = await sessions.add_one_time(
            session,
            purpose,
            token.digest,
            life,
            account_id=account.id if account else None,
            tenant_id=tenant_id,
            payload=payload,
        )
        await mails.add(
            session,
            purpose,
            language,
            recipient,
            {
                **values,
                "link": f"{where.base_url}/account#{purpose}={token.clear}",
                "expires": shown_time(datetime.now(UTC) + life),
            },
            account_id=account.id if account else None,
            dedupe_key=f"{purpose}:{token_id}",
        )
        return token_id

    async def tell(
        self, session: Session, account: Account, template: str, key: str, where: Where, **values: str
    ) -> None:
        """Tell a person by mail that something about their access was changed."""
        await mails.add(
            session,
            template,
            account.language,
            account.email,
            {
                "name": account.name,
                "time": shown_time(datetime.now(UTC)),
                "link": f"{where.base_url}/account",
                **values,
            },
            account_id=account.id,
            dedupe_key=f"{template}:{key}",
        )

    async def record(
        self,
        session: Session,
        account_id: UUID | None,
        action: str,
        where: Where,
        *,
        tenant_id: UUID | None = None,
        **detail: Any,
    ) -> None:
        """Add to the audit log what a person did, or somebody did to their account: to the business's in which it was, else to
        the platform's.
        """
        tenant_id = tenant_id or PLATFORM_TENANT
        context = TenantContext(
            tenant_id, f"user:{account_id}" if account_id else "user:unknown", where.request_id
        )
        async with pinned(session, tenant_id):
            await audit.record(
                session, context, action, "account", account_id or "unknown", device=where.device, **detail
            )


def make_identity(database: Database, storage: StorageSettings, settings: AuthSettings) -> Identity:
    """The parts of a process; to be closed with ``close_identity``.

    Raises:
        ConfigurationError: SECRET_KEY is missing.
    """
    secret, previous = storage.require_secret_key(), settings.previous_secrets
    tokens = Tokens(secret, settings.token_minutes, previous)
    keys = ApiKeys(secret, previous)
    redis = Redis.from_url(
        storage.redis_url or "", socket_timeout=0.5, socket_connect_timeout=0.5, health_check_interval=15
    )
    return Identity(
        database=database,
        settings=settings,
        tokens=tokens,
        keys=keys,
        passwords=Passwords(),
        policy=PasswordPolicy(),
        guard=Guard(secret, DeviceCookies(secret, previous), RedisStore(redis)),
        principals=Principals(database, tokens, keys),
        redis=redis,
    )


async def close_identity(identity: Identity) -> None:
    identity.passwords.close()
    identity.policy.close()
    await identity.redis.aclose(close_connection_pool=True)


def shown_time(at: datetime) -> str:
    """A time in a mail."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
