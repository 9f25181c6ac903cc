"""Access tokens: short JWTs that say who, for which tenant, and what they may do. Sessions and refresh come
with the identity issue.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import jwt

from storage.errors import Unauthenticated
from storage.tenancy import TenantContext

ISSUER = "ai-secretary"
AUDIENCE = "ai-secretary-api"
ALGORITHM = "HS256"


class Tokens:
    """Issues and reads access tokens.

    Args:
        secret_key: of the installation, at least 32 characters.
        minutes: how long a token lasts.
    """

    def __init__(self, secret_key: str, minutes: int) -> None:
        self._key = f"access-token:{secret_key}"
        self._life = timedelta(minutes=minutes)

    @property
    def seconds(self) -> int:
        return int(self._life.total_seconds())

    def issue(self, tenant_id: UUID, user_id: UUID, scopes: tuple[str, ...]) -> str:
        now = datetime.now(UTC)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "tid": str(tenant_id),
            "scopes": list(scopes),
            "jti": str(uuid4()),
            "iat": now,
            "exp": now + self._life,
        }
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"typ": "at+jwt"})

    def read(self, token: str, request_id: str | None) -> TenantContext:
        """The caller that a token speaks for.

        Raises:
            Unauthenticated: forged, expired, or made for something else.
        """
        try:
            if jwt.get_unverified_header(token).get("typ") != "at+jwt":
                raise Unauthenticated("This is no access token.")
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=30,
                options={"require": ["exp", "iat", "sub", "tid", "scopes", "jti"]},
            )
            return TenantContext(
                tenant_id=UUID(claims["tid"]),
                actor=f"user:{UUID(claims['sub'])}",
                request_id=request_id,
                scopes=frozenset(claims["scopes"]),
            )
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise Unauthenticated("The access token is not valid or has expired. Sign in again.") from error
