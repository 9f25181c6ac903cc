"""From what a request shows (cookie, token, key) to who is asking.

What a session or key stands for is remembered for ten seconds: after that a logout, a change of role or a suspension has reached every
process. The process that made the change forgets at once.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from server.auth import caller
from server.auth.api_keys import ApiKeys, ip_allowed, prefix_of
from server.auth.caller import Caller
from server.auth.tokens import AccessClaims, Tokens, new_opaque, opaque_digest
from storage.errors import Forbidden, Unauthenticated
from storage.repositories import members, sessions
from storage.repositories.members import KeyStanding
from storage.repositories.sessions import Standing
from storage.sql import Session
from storage.tenancy import PLATFORM_TENANT, Database

MEMORY_SECONDS = 10.0
MEMORY_SIZE = 20_000
TOUCH = timedelta(seconds=60)
SESSION_PREFIX = "sid"


@dataclass(frozen=True)
class Found:
    """A caller, and the cookie that the answer has to carry where their rights were changed."""

    caller: Caller
    new_cookie: str | None = None


class Principals:
    """Who is behind cookies, tokens and keys. One for a process."""

    def __init__(self, database: Database, tokens: Tokens, keys: ApiKeys) -> None:
        self._database = database
        self._tokens = tokens
        self._keys = keys
        self._known: OrderedDict[bytes | UUID | str, tuple[float, Any]] = OrderedDict()

    async def by_cookie(self, value: str, request_id: str | None) -> Found:
        """The caller of a browser's cookie.

        Raises:
            Unauthenticated: unknown, or its session has ended.
        """
        digest = opaque_digest(SESSION_PREFIX, value)
        standing: Standing | None = None if digest is None else self._recall(digest)
        if standing is None and digest is not None:
            async with self._database.identity_session() as session:
                standing = await sessions.by_token(session, digest)
                if standing is not None:
                    standing = await self._touch(session, standing)
            if standing is not None:
                self._remember(digest, standing)
        if standing is None or digest is None:
            raise Unauthenticated("Your session has ended. Sign in again.")
        found = caller.of_session(standing, "cookie", request_id, self._now(standing))
        if standing.rights is not None and standing.rights != standing.session_rights and standing.current:
            return Found(found, await self._renewed(standing, digest))
        return Found(found)

    async def by_token(self, token: str, request_id: str | None) -> Found:
        """The caller of an access token.

        Raises:
            Unauthenticated: forged, expired, or its session has ended.
        """
        claims: AccessClaims = self._tokens.read(token)
        standing: Standing | None = self._recall(claims.session_id)
        if standing is None:
            async with self._database.identity_session() as session:
                standing = await sessions.by_id(session, claims.session_id)
                if standing is not None:
                    standing = await self._touch(session, standing)
            if standing is not None:
                self._remember(claims.session_id, standing)
        if (
            standing is None
            or standing.account_id != claims.account_id
            or standing.account_security != claims.security_version
            # A token of before the person switched to another business speaks for neither.
            or (standing.tenant_id or PLATFORM_TENANT) != claims.tenant_id
        ):
            raise Unauthenticated("The access token is not valid any more. Sign in again.")
        return Found(caller.of_session(standing, "token", request_id, self._now(standing)))

    async def by_key(self, clear: str, ip: str, request_id: str | None) -> Found:
        """The caller of an API key.

        Raises:
            Unauthenticated: unknown, expired or revoked.
            Forbidden: it may not be used from this address, or the business is suspended.
        """
        prefix = prefix_of(clear)
        key: KeyStanding | None = None if prefix is None else self._recall(prefix)
        if key is None and prefix is not None:
            async with self._database.identity_session() as session:
                key = await members.key_by_prefix(session, prefix)
                if key is not None and (key.last_used_at is None or key.now - key.last_used_at > TOUCH):
                    await members.touch_key(session, key.key_id)
            if key is not None:
                self._remember(prefix, key)
        if key is None or not self._keys.verify(clear, key.key_hash):
            raise Unauthenticated("This API key is not valid.")
        found = caller.of_key(key, request_id)
        if key.allowed_networks and not ip_allowed(ip, list(key.allowed_networks)):
            raise Forbidden("This API key may not be used from here.")
        return Found(found)

    def forget(self, *names: bytes | UUID | str) -> None:
        """After a change: session ids, tokens' digests, keys' prefixes."""
        for name in names:
            self._known.pop(name, None)
        # A browser's session is remembered by its token: found by what it stands for.
        for name, (_, standing) in list(self._known.items()):
            if isinstance(standing, Standing) and standing.session_id in names:
                del self._known[name]

    def forget_account(self, account_id: UUID) -> None:
        """After a change that concerns all sessions of a person."""
        for name, (_, standing) in list(self._known.items()):
            if isinstance(standing, Standing) and standing.account_id == account_id:
                del self._known[name]

    def forget_tenant(self, tenant_id: UUID) -> None:
        """After a change that concerns everybody in a business."""
        for name, (_, standing) in list(self._known.items()):
            if standing.tenant_id == tenant_id:
                del self._known[name]

    async def _touch(self, session: Session, standing: Standing) -> Standing:
        """Note once a minute that the session is in use, unless it has ended by being idle."""
        if not TOUCH < standing.now - standing.last_seen_at < caller.IDLE:
            return standing
        await sessions.touch(session, standing.session_id)
        return replace(standing, last_seen_at=standing.now)

    async def _renewed(self, standing: Standing, digest: bytes) -> str | None:
        """Rights were changed since this cookie was made: a new one takes its place. None where another request did it."""
        fresh = new_opaque(SESSION_PREFIX)
        async with self._database.identity_session() as session:
            renewed = await sessions.renew(session, standing.session_id, fresh.digest, shown=digest)
        self.forget(digest)
        return fresh.clear if renewed else None

    @staticmethod
    def _now(standing: Standing) -> datetime:
        """The database's clock at the look-up, or ours where it has gone on since: a memory must not stretch a session."""
        return max(standing.now, datetime.now(UTC))

    def _remember(self, name: bytes | UUID | str, value: Any) -> None:
        self._known[name] = (time.monotonic() + MEMORY_SECONDS, value)
        self._known.move_to_end(name)
        while len(self._known) > MEMORY_SIZE:
            self._known.popitem(last=False)

    def _recall(self, name: bytes | UUID | str) -> Any:
        known = self._known.get(name)
        if known is None:
            return None
        if known[0] <= time.monotonic():
            self._known.pop(name, None)
            return None
        return known[1]
