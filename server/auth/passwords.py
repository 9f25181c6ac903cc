"""argon2id on threads of its own: hashing must not become a way to stop the server, or to keep others out of it.

At most two threads of low priority do the work, and never as many as there are processors (the event loop and the database want
one); few calls may wait for them, and fewer from one source; whoever comes beyond that is told at once to come again.
"""

import asyncio
import os
import sys
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from storage.errors import AppError

MAX_CHARACTERS = 128
_HASHER = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)  # OWASP's minimum; 56 ms
# Compared with when the user is unknown, so that the answer takes as long.
_NOBODY = _HASHER.hash("nobody has this password")
THREADS = min(2, max(1, (os.cpu_count() or 2) - 1))
_T = TypeVar("_T")


class Busy(AppError):
    """Too many people sign in at this moment."""

    code: ClassVar[str] = "RATE_LIMITED"
    status: ClassVar[int] = 503
    retryable: ClassVar[bool] = True

    def __init__(self, retry_after: int = 2) -> None:
        super().__init__(
            f"Too many people are signing in at this moment. Try again in {retry_after} seconds.",
            retry_after=retry_after,
        )


class BoundedExecutor:
    """Threads of low priority before which only so many calls may wait.

    A call that is cancelled while it waits is never run; one that is cancelled while it runs keeps its place until
    it has ended, because its thread is taken until then.

    Args:
        threads: how many calls run at a time.
        waiting: how many calls may wait besides them.
        per_source: how many of both may belong to one source, so that one flooder leaves room for the others.
    """

    def __init__(self, name: str, threads: int, waiting: int, per_source: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=_lower_priority)
        self._most = threads + waiting
        self._per_source = per_source
        self._lock = threading.Lock()
        self._taken = 0
        self._by_source: Counter[str] = Counter()

    async def run(self, source: str | None, call: Callable[[], _T]) -> _T:
        """The call's result.

        Raises:
            Busy: the places are taken, or those for this source are.
        """
        with self._lock:
            self._require_room(source)
            self._taken += 1
            if source is not None:
                self._by_source[source] += 1
        try:
            future = self._pool.submit(call)
        except BaseException:
            self._leave(source)
            raise
        future.add_done_callback(lambda _: self._leave(source))
        return await asyncio.wrap_future(future)

    def require_room(self, source: str | None) -> None:
        """Ask before work is done that a full house would make useless. A place is not kept.

        Raises:
            Busy: the places are taken, or those for this source are.
        """
        with self._lock:
            self._require_room(source)

    def _require_room(self, source: str | None) -> None:
        full = self._taken >= self._most
        if full or (source is not None and self._by_source[source] >= self._per_source):
            raise Busy

    def close(self) -> None:
        """End the threads; what waits is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _leave(self, source: str | None) -> None:
        with self._lock:
            self._taken -= 1
            if source is not None:
                self._by_source[source] -= 1
                if not self._by_source[source]:
                    del self._by_source[source]


class Passwords:
    """Hashes and compares passwords.

    A password is brought into Unicode's form NFKC first, so that the same password typed on another keyboard or
    system is the same bytes (NIST SP 800-63B, 3.1.1.2).

    Args:
        waiting: calls that may wait for those that run; the next one gets ``Busy``.
        per_source: places that one source may take.
    """

    def __init__(self, waiting: int = 16, per_source: int = 8) -> None:
        self._executor = BoundedExecutor("passwords", THREADS, waiting, per_source)

    async def verify(self, stored: str | None, given: str, source: str | None = None) -> bool:
        """Whether the password is right; takes the same time for a user who does not exist (``stored`` None).

        Args:
            stored: the hash in PHC format, or None for an unknown user.
            source: where the request comes from, such as the network of its address.

        Raises:
            Busy: too many wait already.
        """
        encoded = _encoded(given)
        known = stored is not None and encoded is not None
        against = stored if stored is not None and known else _NOBODY
        matches = await self._executor.run(source, lambda: _matches(against, encoded or b""))
        return matches and known

    async def hash(self, password: str, source: str | None = None) -> str:
        """The hash to store, in PHC format.

        Raises:
            Busy: too many wait already.
            ValueError: longer than ``MAX_CHARACTERS``, or no text (a lone surrogate).
        """
        return await self._executor.run(source, lambda: hash_password(password))

    def require_room(self, source: str | None = None) -> None:
        """Whether it is of use to look anything up before a password is compared.

        Raises:
            Busy: too many wait already.
        """
        self._executor.require_room(source)

    def needs_rehash(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than today's; ask after a right password."""
        try:
            return _HASHER.check_needs_rehash(stored)
        except InvalidHashError:
            return True

    def close(self) -> None:
        self._executor.close()


def hash_password(password: str) -> str:
    """As ``Passwords.hash``, in the caller's thread: for commands, not for a server."""
    encoded = _encoded(password)
    if encoded is None:
        raise ValueError("The password is too long or is no text.")
    return _HASHER.hash(encoded)


def normalise(password: str) -> str:
    """Unicode's form NFKC."""
    return unicodedata.normalize("NFKC", password)


def _encoded(password: str) -> bytes | None:
    """What is hashed; None for what cannot be anybody's password and is not worth normalising."""
    if len(password) > MAX_CHARACTERS:
        return None
    try:
        return normalise(password).encode()
    except UnicodeEncodeError:
        return None


def _matches(stored: str, given: bytes) -> bool:
    try:
        return _HASHER.verify(stored, given)
    except (VerificationError, InvalidHashError):
        return False


def _lower_priority() -> None:
    """Put this thread behind the event loop's: on Linux each thread has a nice value of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
