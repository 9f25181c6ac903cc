"""Which passwords are taken: long enough and hard to guess, with no rules about kinds of characters (NIST SP 800-63B,
ASVS 5.0 V6.2). Lengths are counted after normalising to NFKC, as the password is hashed.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import httpx
import structlog
from zxcvbn import zxcvbn  # type: ignore[import-untyped]  # the package has no types

from server.auth.passwords import MAX_CHARACTERS, BoundedExecutor, normalise

log = structlog.get_logger(__name__)

MIN_CHARACTERS = 12
MIN_SCORE = 3
COMMON_FILE = Path(__file__).parent / "data" / "common_passwords.bin"
PREFIX_BYTES = 5
_ESTIMATED = 72  # zxcvbn raises above that
_UNLEET = str.maketrans("013457@$!", "oieastasi")
_PRODUCT = ("secretary", "assistant")
_MIN_BESIDE_CONTEXT = 8


@dataclass(frozen=True)
class Reason:
    """Why a password is not taken: a stable code for programs, a sentence for people."""

    code: str
    sentence: str


TOO_SHORT = Reason("PASSWORD_TOO_SHORT", f"Use at least {MIN_CHARACTERS} characters.")
TOO_LONG = Reason("PASSWORD_TOO_LONG", f"Use at most {MAX_CHARACTERS} characters.")
NO_TEXT = Reason("PASSWORD_NO_TEXT", "The password has a character that cannot be stored.")
GUESSABLE = Reason(
    "PASSWORD_GUESSABLE", "This is too easy to guess. Take a few words more that do not belong together."
)
COMMON = Reason("PASSWORD_COMMON", "This is one of the passwords that are tried first. Take another one.")
CONTEXT = Reason(
    "PASSWORD_CONTEXT", "Do not build the password from your name, your address or the business's name."
)
BREACHED = Reason("PASSWORD_BREACHED", "This password is known from a data breach. Take another one.")


@dataclass(frozen=True)
class Verdict:
    """What is wrong, nothing for a good password.

    Attributes:
        breach_check: ``failed`` where the service did not answer and the password was taken all the same; the
            caller writes that into the audit log.
    """

    reasons: tuple[Reason, ...]
    breach_check: Literal["off", "done", "failed"] = "off"


class BreachedPasswords:
    """Asks a service with the interface of Have I Been Pwned's range search, which sees five hex digits of the hash
    (k-anonymity) and answers with all that begin so.

    Args:
        client: with the service's address as ``base_url`` and a time-out.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def contains(self, password: str) -> bool | None:
        """Whether it is listed; None where the service gave no usable answer."""
        digest = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper()
        try:
            # Padding hides from a listener how many there are; the padding's entries have the count 0.
            answer = await self._client.get(f"range/{digest[:5]}", headers={"Add-Padding": "true"})
            answer.raise_for_status()
            for line in answer.text.splitlines():
                suffix, _, count = line.strip().partition(":")
                if suffix.upper() == digest[5:]:
                    return int(count) > 0
        except (httpx.HTTPError, ValueError) as error:
            log.warning("breach_check_failed", error=type(error).__name__)
            return None
        return False


class PasswordPolicy:
    """Judges new passwords; never one that is used to sign in.

    Args:
        breached: asked last, and only about passwords that are good otherwise.
    """

    def __init__(self, breached: BreachedPasswords | None = None) -> None:
        self._breached = breached
        # One thread: the estimator keeps its input in a variable of its module. It takes up to 50 ms.
        self._executor = BoundedExecutor("password-policy", 1, 32, 8)

    async def check(self, password: str, context: Sequence[str] = (), source: str | None = None) -> Verdict:
        """What speaks against the password.

        Args:
            context: the account's e-mail address and name, the business's name.
            source: where the request comes from, as for ``Passwords.verify``.

        Raises:
            Busy: too many wait already.
        """
        if len(password) > MAX_CHARACTERS:
            return Verdict((TOO_LONG,))
        try:
            password.encode()
        except UnicodeEncodeError:
            return Verdict((NO_TEXT,))
        password = normalise(password)
        words = context_words(context)
        reasons = _quick(password, words)
        if (
            len(password) <= MAX_CHARACTERS
            and await self._executor.run(source, _score(password, words)) < MIN_SCORE
        ):
            reasons.append(GUESSABLE)
        if reasons or self._breached is None:
            return Verdict(tuple(reasons))
        known = await self._breached.contains(password)
        return Verdict((BREACHED,) if known else (), "failed" if known is None else "done")

    def close(self) -> None:
        self._executor.close()


def canonical(text: str) -> str:
    """The spelling under which words are compared: NFKC, small letters."""
    return unicodedata.normalize("NFKC", text.strip()).casefold()


def context_words(texts: Iterable[str]) -> list[str]:
    """The words of addresses and names that are long enough to build a password from, and the product's own."""
    words = dict.fromkeys(_PRODUCT)
    for text in texts:
        whole = canonical(text)
        words.update(dict.fromkeys([whole, *re.split(r"[\W_]+", whole), re.sub(r"[\W_]+", "", whole)]))
    return sorted((word for word in words if len(word) >= 4), key=len, reverse=True)


def is_common(password: str) -> bool:
    """Whether it is in the bundled list, also where digits and signs were hung on a listed word that makes up half
    of it or more, or letters replaced by the digits that look like them.
    """
    whole = canonical(password)
    core = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", whole)
    candidates = {whole, whole.translate(_UNLEET)}
    if len(core) >= 4 and 2 * len(core) >= len(whole):
        candidates |= {core, core.translate(_UNLEET)}
    return any(_listed(word) for word in candidates)


def _quick(password: str, words: Sequence[str]) -> list[Reason]:
    reasons = []
    if len(password) < MIN_CHARACTERS:
        reasons.append(TOO_SHORT)
    if len(password) > MAX_CHARACTERS:
        reasons.append(TOO_LONG)
    if is_common(password):
        reasons.append(COMMON)
    if _is_mostly(password, words):
        reasons.append(CONTEXT)
    return reasons


def _is_mostly(password: str, words: Sequence[str]) -> bool:
    """Whether too little is left when the context's words are taken out."""
    for spelling in (canonical(password), canonical(password).translate(_UNLEET)):
        left = spelling
        for word in words:
            left = left.replace(word, "")
        if len(left) < min(_MIN_BESIDE_CONTEXT, len(spelling)):
            return True
    return False


def _score(password: str, words: Sequence[str]) -> Callable[[], int]:
    estimated = password[:_ESTIMATED] or "-"  # zxcvbn raises on nothing, too
    return lambda: int(zxcvbn(estimated, user_inputs=list(words))["score"])


def _listed(word: str) -> bool:
    prefix = hashlib.sha1(word.encode(), usedforsecurity=False).digest()[:PREFIX_BYTES]
    table = _table()
    low, high = 0, len(table) // PREFIX_BYTES
    while low < high:
        middle = (low + high) // 2
        at = table[middle * PREFIX_BYTES : (middle + 1) * PREFIX_BYTES]
        if at == prefix:
            return True
        low, high = (middle + 1, high) if at < prefix else (low, middle)
    return False


@cache
def _table() -> bytes:
    return COMMON_FILE.read_bytes()
