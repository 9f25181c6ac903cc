"""Codes of authenticator apps: TOTP, RFC 6238, with the parameters that all apps know (SHA-1, 6 digits, 30 s)."""

import hmac
import re
from datetime import datetime

import pyotp

STEP_SECONDS = 30
_CODE = re.compile(r"[0-9]{6}")


def new_secret() -> str:
    """A secret of 160 bit (RFC 4226, section 4, R6), in base32."""
    return pyotp.random_base32(32)


def provisioning_uri(secret: str, account: str, issuer: str) -> str:
    """The ``otpauth://`` address that the app reads from a QR code. It contains the secret: never log it."""
    return pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=issuer)


def verify(secret: str, code: str, now: datetime, last_step: int | None) -> int | None:
    """The time step that the code belongs to, or None where it is wrong, too old or used.

    The step before and the step after are accepted, for clocks that differ. The caller stores the step with
    ``update … where last_step is null or last_step < :step``, which makes a code usable once (RFC 6238, 5.2).

    Args:
        code: as typed; spaces do not matter.
        now: with a time zone.
        last_step: of the last code that was accepted; that step and those before it are used up.
    """
    typed = re.sub(r"\s", "", code[:32])
    if not _CODE.fullmatch(typed):
        return None
    totp = pyotp.TOTP(secret, interval=STEP_SECONDS)
    current = totp.timecode(now)
    found = None
    for step in (current - 1, current, current + 1):  # all three, so that time does not tell which one it was
        same = hmac.compare_digest(totp.generate_otp(step), typed) if step >= 0 else False
        if same and (last_step is None or step > last_step):
            found = step  # the latest, should two steps have the same code: then both are used up
    return found
