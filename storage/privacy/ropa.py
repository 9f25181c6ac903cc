"""The record of processing activities (GDPR Art. 30(1)), made from the registry: what it says is what the program does."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from storage.privacy.rules import MEANINGS, Rule
from storage.registry import PURPOSES, PersonalColumn, columns

_SUBJECTS = {
    "thread": "visitors who write to the business",
    "contact": "customers and prospects",
    "account": "members of staff",
    "tenant": "the business itself",
}
_KINDS = {
    "NAME": "names",
    "EMAIL": "e-mail addresses",
    "PHONE": "telephone numbers",
    "COMPANY": "companies that people work for",
    "IDENTIFIER": "identifiers of accounts and devices",
    "TEXT": "what was written in conversations and noted about them",
    "FILE": "files that were sent",
    "CREDENTIAL": "secrets, as hashes or sealed",
    "DEVICE": "devices and places of sign-in",
    "ACT": "who did what",
    "CONSENT": "proofs of consent",
}
MEASURES = (
    "Content is encrypted with a key of its own for each person, which erasure destroys (AES-256-GCM, envelope encryption).",
    "Each business's rows are separated in the database itself (row-level security) and under keys of its own.",
    "Access by role, a second factor for those who administer, a fresh proof for exports and erasures.",
    "Every access to personal data by staff is in an audit log that can be added to and not changed.",
    "What identifies a person is replaced by placeholders before a model provider sees it, as far as it is recognised.",
)


@dataclass(frozen=True)
class Recipient:
    """To whom data goes, and which.

    Attributes:
        third_country: a host outside the installation whose country has to be looked up by the business (Art. 44 ff.).
    """

    name: str
    receives: str
    third_country: bool = False


@dataclass(frozen=True)
class Activity:
    """One purpose: an entry of the record."""

    purpose: str
    description: str
    subjects: tuple[str, ...]
    categories: tuple[str, ...]
    retention: tuple[str, ...]
    places: tuple[str, ...]
    readers: tuple[str, ...]


@dataclass(frozen=True)
class Record:
    """The record of one business."""

    controller: str
    made_at: datetime
    activities: tuple[Activity, ...]
    recipients: tuple[Recipient, ...]
    measures: tuple[str, ...]


def record_of(
    controller: str, rules: dict[str, Rule], recipients: Sequence[Recipient], made_at: datetime
) -> Record:
    """The record as of now. Purposes in which nothing is registered are left out."""
    by_purpose: dict[str, list[PersonalColumn]] = {}
    for entry in columns():
        by_purpose.setdefault(entry.personal.purpose, []).append(entry)
    activities = tuple(
        _activity(purpose, by_purpose[purpose], rules) for purpose in PURPOSES if purpose in by_purpose
    )
    return Record(controller, made_at, activities, tuple(recipients), MEASURES)


def _activity(purpose: str, entries: Sequence[PersonalColumn], rules: dict[str, Rule]) -> Activity:
    kept = dict.fromkeys(entry.personal.retention for entry in entries)
    return Activity(
        purpose=purpose,
        description=PURPOSES[purpose],
        subjects=tuple(dict.fromkeys(_SUBJECTS[entry.subject.kind] for entry in entries)),
        categories=tuple(dict.fromkeys(_KINDS[entry.personal.kind] for entry in entries)),
        retention=tuple(_kept(rules[key]) for key in kept),
        places=tuple(entry.name for entry in entries),
        readers=tuple(sorted({scope for entry in entries for scope in entry.personal.readers})),
    )


def _kept(rule: Rule) -> str:
    life = "until erased" if rule.days is None else f"{rule.days} days"
    return f"{rule.key}: {life}. {MEANINGS[rule.key]}"


def markdown(record: Record) -> str:
    """The record for people."""
    lines = [
        "# Record of processing activities (Art. 30 GDPR)",
        "",
        f"Controller: {_cell(record.controller)}",
        "",
        f"As of {record.made_at.isoformat(timespec='seconds')}.",
        "Contact details of the controller and of a data protection officer are to be added by hand.",
    ]
    for activity in record.activities:
        lines += ["", f"## {activity.purpose}", "", activity.description, ""]
        for title, values in (
            ("Persons", activity.subjects),
            ("Categories of data", activity.categories),
            ("Kept", activity.retention),
            ("May read", activity.readers or ("nobody over the API",)),
            ("Stored in", activity.places),
        ):
            lines.append(f"- {title}: {'; '.join(values)}")
    lines += ["", "## Recipients", "", "| recipient | receives | third country |", "|---|---|---|"]
    lines += [
        f"| {_cell(who.name)} | {_cell(who.receives)} | {'to be checked' if who.third_country else 'no'} |"
        for who in record.recipients
    ]
    lines += ["", "## Technical and organisational measures (Art. 32)", ""]
    lines += [f"- {measure}" for measure in record.measures]
    return "\n".join(lines) + "\n"


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
