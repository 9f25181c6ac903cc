"""How long what is kept: the registry's retention keys with a business's own numbers, and which rule removes which table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from storage.registry import RETENTION_DAYS, PersonalColumn, columns

_NO_DAYS = frozenset(
    {"account", "operation"}
)  # these end with the account and the business, not by their age
AUDIT_MINIMUM_DAYS = 30  # the database refuses to remove younger entries
MEANINGS: Mapping[str, str] = {
    "conversation": "Content of conversations, counted from their last message; their rows stay as numbers.",
    "trace": "How an answer came about: steps of turns, and what the program remembers of idle conversations.",
    "relationship": "Contacts, leads and notes, counted from the last activity; then the contact is erased.",
    "account": "Accounts of staff, until they are removed.",
    "session": "Sign-ins that have ended, used links, sent mails, answers kept for repeated requests.",
    "audit": "Who did what; at least 30 days.",
    "operation": "The business's own secrets, until it ends.",
}

Way = Literal[
    "thread",  # with the whole conversation
    "contact",  # with the whole contact, by a request of erasure
    "steps",  # prune_turns
    "ended",  # sessions, links, mails, answers: when they are over
    "audit",  # audit_prune
    "age",  # row by row, by created_at
    "owner",  # as long as the account or the business
]
_ENDED = frozenset({"sessions", "refresh_tokens", "one_time_tokens", "mails", "idempotency_keys"})


@dataclass(frozen=True)
class Rule:
    """A retention key in force; ``days`` None: no limit."""

    key: str
    days: int | None
    default: int | None

    @property
    def own(self) -> bool:
        """Whether the business has set it."""
        return self.days != self.default


def rules_of(
    settings: Mapping[str, Any], proposed: Mapping[str, int | None] | None = None
) -> dict[str, Rule]:
    """The rules of a business.

    Args:
        settings: of the tenant; ``retention`` maps keys to days. What is no number of days counts as not set.
        proposed: days that are only tried out; they go before the settings.
    """
    given = settings.get("retention")
    own: dict[str, Any] = {**(given if isinstance(given, Mapping) else {}), **(proposed or {})}
    rules = {}
    for key, default in RETENTION_DAYS.items():
        days = own.get(key, default)
        if days is not None and (not isinstance(days, int) or isinstance(days, bool) or days < 1):
            days = default
        if key in _NO_DAYS:
            days = None
        if key == "audit" and days is not None:
            days = max(days, AUDIT_MINIMUM_DAYS)
        rules[key] = Rule(key, days, default)
    return rules


def way_of(entry: PersonalColumn) -> Way:
    """How the retention of a column is carried out. Every column has a way: one that is added falls under one of these."""
    retention, kind = entry.personal.retention, entry.subject.kind
    if entry.table == "turn_steps":
        return "steps"
    if entry.table == "audit_log":
        return "audit"
    if entry.table in _ENDED:
        return "ended"
    if kind == "thread" and retention == "conversation":
        return "thread"
    if kind == "contact" and retention == "relationship":
        return "contact"
    if kind in ("account", "tenant") and RETENTION_DAYS[retention] is None:
        return "owner"
    return "age"


def aged() -> dict[tuple[str, str], list[PersonalColumn]]:
    """Columns that go by the age of their row, by (table, retention key)."""
    found: dict[tuple[str, str], list[PersonalColumn]] = {}
    for entry in columns():
        if way_of(entry) == "age":
            found.setdefault((entry.table, entry.personal.retention), []).append(entry)
    return found
