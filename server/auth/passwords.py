"""argon2id, in a thread and not more than two at a time: hashing must not become a way to stop the server."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)  # OWASP's minimum; 56 ms
# Compared with when the user is unknown, so that the answer takes as long.
_NOBODY = _HASHER.hash("nobody has this password")


class Passwords:
    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(2)

    async def verify(self, stored: str | None, given: str) -> bool:
        """Whether the password is right; takes the same time for a user who does not exist (``stored`` None)."""
        async with self._slots:
            matches = await asyncio.to_thread(_matches, stored or _NOBODY, given)
        return matches and stored is not None


def hash_password(password: str) -> str:
    return _HASHER.hash(password)


def _matches(stored: str, given: str) -> bool:
    try:
        return _HASHER.verify(stored, given)
    except (VerificationError, InvalidHashError):
        return False
