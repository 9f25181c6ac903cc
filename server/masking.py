"""What must not stand in a log line: values by the name of their field, and by their form wherever they occur.

The last line of defence. Nothing personal is meant to be logged in the first place; exceptions of libraries are not asked what they quote.
"""

import re
from collections.abc import Mapping
from typing import Any

from structlog.typing import EventDict, WrappedLogger

MASKED = "[masked]"
_MAX_DEPTH = 6

# Names whose values are secrets or personal, however they are spelled: `access_token`, `X-Api-Key`, `newPassword`.
_DENIED = frozenset(
    """
    accesstoken apikey authorization challenge clientsecret code codeverifier cookie credentials currentpassword devicecookie idtoken
    masterkeys newpassword otp passphrase passwd password privatekey proxyauthorization recoverycode refreshtoken secret secretkey
    sessioncookie setcookie sid token totp
    body email emailaddress filename iban message messagetext phone phonenumber prompt quote recipient text transcript useragent
    """.split()  # noqa: SIM905  # a table of words
)
_DENIED_ENDS = ("password", "secret", "token", "apikey", "cookie", "authorization")
_NOT_LETTERS = re.compile(r"[^a-z]")
# Ours, of values that we made: never looked into.
_OWN = frozenset({"event", "level", "logger", "timestamp", "request_id", "tenant_id", "actor", "address"})

_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
# One pass over the text, the first alternative that fits wins: what is kept comes first, the more telling name before the more general.
_FORMS = re.compile(
    rf"""
      (?P<kept>\b{_UUID}\b|\breq_[0-9a-f]{{32}}\b|\b\d{{4}}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?)
    | (?P<jwt>\beyJ[\w-]{{5,}}\.[\w-]{{5,}}(?:\.[\w-]*)?)
    | (?P<login>(?<=://)[^\s/@:]*:[^\s/@]+(?=@))
    | (?P<bearer>(?i:\b(?:bearer|basic)\s+)[\w.~+/=-]{{8,}})
    | (?P<named>(?i:\b[\w-]{{0,40}}(?:password|passwd|secret|token|api[-_]?key|cookie|authorization)["']?\s*[=:]\s*["']?
               (?:(?:bearer|basic)\s+)?)[^\s"',;&]+)
    | (?P<email>[^\s@<>"'(),;:=]{{1,64}}@[^\s@<>"'(),;:]+\.\w{{2,}})
    | (?P<opaque>\b(?:[a-z]{{2,12}}_|sk-)[A-Za-z0-9_-]{{24,}}|(?<![\w/.-])(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{{32,}}(?![\w/.-]))
    | (?P<iban>\b[A-Z]{{2}}\d{{2}}(?:[ ]?[A-Z0-9]{{4}}){{2,7}}(?:[ ]?[A-Z0-9]{{1,3}})?\b)
    | (?P<card>(?<![\w.-])\d(?:[ -]?\d){{12,18}}(?![\w.-]))
    | (?P<phone>(?<![\w.:+-])(?:\+|00)[1-9](?:[ ()/.-]{{0,2}}\d){{6,14}}(?!\w)
               |(?<![\w.:+-])0[1-9]\d{{1,4}}[ /-]\d(?:[ /-]?\d){{4,10}}(?!\w))
    """,
    re.VERBOSE,
)
# What would end a line, drive a terminal or turn text around: C0 (JSON escapes tab and line feed), DEL, C1, separators, directions.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def mask_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A processor of structlog: the entry without what its names or forms betray. Stands after the traceback was made a text."""
    shown: dict[str, Any] = {}
    for name, value in event.items():
        if name.startswith("_"):  # structlog's own, such as the record
            shown[name] = value
        elif name in _OWN:
            shown[name] = (
                _printable(mask_text(value)) if name == "event" and isinstance(value, str) else value
            )
        else:
            shown[_printable(name)] = masked(name, value)
    return shown


def masked(name: str, value: Any, depth: int = 0) -> Any:
    """A field's value as it may be logged.

    Args:
        name: of the field; a denied one masks whatever is in it, but for None, truth values and numbers that count something.
    """
    if value is None or isinstance(value, bool):
        return value
    letters = _NOT_LETTERS.sub("", name.lower())
    if letters in _DENIED or letters.endswith(_DENIED_ENDS):
        # `code` is also what our errors are called by: MODEL_DOWN, 4401.
        is_error = name == "code" and bool(re.fullmatch(r"[A-Za-z_.]{3,60}|-?\d{1,4}", str(value)))
        return value if is_error else MASKED
    if isinstance(value, str):
        return _printable(mask_text(value))
    if isinstance(value, int | float):
        return value
    if depth >= _MAX_DEPTH:
        return MASKED
    if isinstance(value, Mapping):
        return {
            _printable(mask_text(str(key))): masked(str(key), item, depth + 1) for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [masked("", item, depth + 1) for item in value]
    return _printable(mask_text(str(value)))


def mask_text(text: str) -> str:
    """The text with ``[masked:kind]`` in place of what has the form of a secret or of personal data."""
    return _FORMS.sub(_replacement, text)


def _replacement(match: re.Match[str]) -> str:
    kind, value = match.lastgroup, match[0]
    if kind == "kept" or (kind == "card" and not _luhn(value)) or (kind == "iban" and not _iban(value)):
        return value
    return f"[masked:{kind}]"


def _printable(text: str) -> str:
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _luhn(text: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    digits = [int(sign) for sign in reversed(text) if sign.isdigit()]
    return (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10 == 0


def _iban(text: str) -> bool:
    """ISO 13616: the number is 1 modulo 97."""
    compact = text.replace(" ", "")
    return int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 == 1
