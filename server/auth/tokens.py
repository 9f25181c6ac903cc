"""Access tokens: short JWTs that say who speaks, in which session, and how they proved it. Rights are not in them:
they are looked up by the session. Everything that lives longer is opaque and stored as a digest.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from storage.errors import Unauthenticated

ISSUER = "ai-secretary"
AUDIENCE = "ai-secretary-api"
ALGORITHM = "HS256"
TYPE = "at+jwt"  # RFC 9068
LEEWAY = timedelta(seconds=30)
# Exactly these: a header that names a key by address or brings one along (jku, x5u, jwk) is refused unread.
_HEADER = {"alg", "typ", "kid"}
_REQUIRED = ["iss", "aud", "sub", "tid", "sid", "sv", "jti", "iat", "nbf", "exp", "amr", "auth_time"]
_PREFIX = re.compile(r"[a-z]{2,12}")
_OPAQUE_CHARACTERS = 43  # 32 bytes in base64url without padding


@dataclass(frozen=True)
class AccessClaims:
    """What an access token says.

    Attributes:
        account_id: ``sub``.
        tenant_id: ``tid``.
        session_id: ``sid``; by it the rights are looked up, and whether the session still stands.
        security_version: ``sv``; older than the account's, the token is worth nothing.
        token_id: ``jti``.
        amr: how the person proved who they are (RFC 8176), such as ``("pwd", "otp")``.
        auth_time: when they did.
    """

    account_id: UUID
    tenant_id: UUID
    session_id: UUID
    security_version: int
    token_id: UUID
    amr: tuple[str, ...]
    auth_time: datetime
    issued_at: datetime
    expires_at: datetime


class Tokens:
    """Issues and reads access tokens.

    Args:
        secret_key: of the installation, at least 32 characters; new tokens are signed with a key derived from it.
        minutes: how long a token lasts.
        previous: secrets before it, whose tokens are still accepted.
        now: the clock, with a time zone.
    """

    def __init__(
        self,
        secret_key: str,
        minutes: int = 10,
        previous: Sequence[str] = (),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._life = timedelta(minutes=minutes)
        self._now = now
        self._kid = key_id(secret_key)
        self._keys = {key_id(secret): signing_key(secret) for secret in (*previous, secret_key)}

    @property
    def seconds(self) -> int:
        return int(self._life.total_seconds())

    def issue(
        self,
        *,
        account_id: UUID,
        tenant_id: UUID,
        session_id: UUID,
        security_version: int,
        amr: Sequence[str],
        auth_time: datetime,
    ) -> str:
        now = int(self._now().timestamp())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(account_id),
            "tid": str(tenant_id),
            "sid": str(session_id),
            "sv": security_version,
            "jti": str(uuid4()),
            "iat": now,
            "nbf": now,
            "exp": now + self.seconds,
            "amr": list(amr),
            "auth_time": int(auth_time.timestamp()),
        }
        headers = {"typ": TYPE, "kid": self._kid}
        return jwt.encode(claims, self._keys[self._kid], algorithm=ALGORITHM, headers=headers)

    def read(self, token: str) -> AccessClaims:
        """What the token says. Whether its session still stands is the caller's to look up.

        Raises:
            Unauthenticated: forged, expired, or made for something else.
        """
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            key = self._keys.get(kid) if isinstance(kid, str) else None
            if set(header) != _HEADER or header["typ"] != TYPE or key is None:
                raise jwt.InvalidTokenError("no access token of this installation")
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                # The times are compared below, by our clock.
                options={
                    "require": _REQUIRED,
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            return self._checked(claims)
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, OSError) as error:
            raise Unauthenticated("The access token is not valid or has expired. Sign in again.") from error

    def _checked(self, claims: dict[str, Any]) -> AccessClaims:
        issued, begins, expires = (_time(claims[name]) for name in ("iat", "nbf", "exp"))
        now = self._now()
        if expires + LEEWAY <= now or begins - LEEWAY > now or issued - LEEWAY > now:
            raise jwt.InvalidTokenError("outside its time")
        amr = claims["amr"]
        if type(claims["sv"]) is not int or not isinstance(amr, list):
            raise TypeError("sv or amr")
        if not all(isinstance(method, str) for method in amr):
            raise TypeError("amr")
        return AccessClaims(
            account_id=_uuid(claims["sub"]),
            tenant_id=_uuid(claims["tid"]),
            session_id=_uuid(claims["sid"]),
            security_version=claims["sv"],
            token_id=_uuid(claims["jti"]),
            amr=tuple(amr),
            auth_time=_time(claims["auth_time"]),
            issued_at=issued,
            expires_at=expires,
        )


class Opaque(NamedTuple):
    """``clear`` goes out once; ``digest`` (SHA-256, 32 bytes) is stored. 256 bit need no slow hash."""

    clear: str
    digest: bytes


def new_opaque(prefix: str) -> Opaque:
    """A random value of 256 bit for a session, a refresh, a link in a mail or an invitation.

    Args:
        prefix: two to twelve small letters that say what it is for; a value of one kind never matches another's.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{prefix!r} is no prefix of an opaque token")
    clear = f"{prefix}_{secrets.token_urlsafe(32)}"
    return Opaque(clear, hashlib.sha256(clear.encode()).digest())


def opaque_digest(prefix: str, clear: str) -> bytes | None:
    """What to look for among the stored digests; None for what cannot be a value of this kind."""
    body = clear.removeprefix(f"{prefix}_")
    if len(body) != _OPAQUE_CHARACTERS or body == clear or not re.fullmatch(r"[A-Za-z0-9_-]+", body):
        return None
    return hashlib.sha256(clear.encode()).digest()


def key_id(secret: str) -> str:
    """The public name of a secret's signing key; says nothing about the secret."""
    return hmac.new(secret.encode(), b"access-token-kid", hashlib.sha256).hexdigest()[:12]


def signing_key(secret: str) -> bytes:
    """32 bytes. Derived, so that no other use of the installation's secret makes valid tokens."""
    return derive(secret, "access-token")


def derive(secret: str, purpose: str) -> bytes:
    """A key of 32 bytes for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(SHA256(), length=32, salt=None, info=f"ai-secretary/{purpose}".encode()).derive(
        secret.encode()
    )


def _uuid(value: object) -> UUID:
    if not isinstance(value, str):
        raise TypeError("an id is no text")
    return UUID(value)


def _time(value: object) -> datetime:
    if type(value) is not int:
        raise TypeError("a time is no whole number")
    return datetime.fromtimestamp(value, UTC)
