"""From a template and its values to a mail. A template has a subject and a body in plain text, one paragraph a line; the
HTML part is made of the same paragraphs, so the two cannot differ.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Literal, get_args
from uuid import UUID

from jinja2 import FileSystemLoader, StrictUndefined, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

Template = Literal[
    "verify_email",
    "reset_password",
    "password_changed",
    "invitation",
    "new_sign_in",
    "refresh_reuse",
    "mfa_changed",
    "erasure_done",
    "export_ready",
]
TEMPLATES: tuple[Template, ...] = get_args(Template)
LANGUAGES = ("en", "de")
_FOLDER = Path(__file__).parent / "templates"
_LONGEST_VALUE = 120
_LINK = "link"
# What mail programs turn into a link by themselves. A business's or a person's name must not bring its own into our mails.
_LOOKS_LIKE_LINK = re.compile(r"(?i)(?:[a-z][a-z0-9+.-]*://|www\.)\S*|\b[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}/\S*")


class MailError(Exception):
    """A mail cannot be made of this: a value is missing, a link or an address is none."""


@dataclass(frozen=True)
class Mail:
    """The text of a mail in both forms."""

    subject: str
    text: str
    html: str


def compose(template: Template, language: str, values: Mapping[str, str]) -> Mail:
    """The mail in the language, or in English where there is none in it.

    Args:
        values: what the template names; ``link`` is an https address, or http on this machine. All others are
            shortened, in one line, and lose what a mail program would make a link of.

    Raises:
        MailError: a value is missing, or the link is no link.
    """
    if template not in TEMPLATES:
        raise MailError(f"there is no template {template!r}")
    primary = language.replace("_", "-").split("-")[0].lower()
    spoken = primary if primary in LANGUAGES else "en"
    clean = {name: _link(value) if name == _LINK else _one_line(value) for name, value in values.items()}
    source = _environment(html=False).get_template(f"{template}.{spoken}.j2")
    context = source.new_context(clean)
    try:
        subject, body = ("".join(source.blocks[name](context)) for name in ("subject", "body"))
    except UndefinedError as error:
        raise MailError(f"{template}: {error}") from error
    subject = " ".join(subject.split())
    paragraphs = [line.strip() for line in body.splitlines() if line.strip()]
    layout = _environment(html=True).get_template("layout.html.j2")
    html = layout.render(language=spoken, subject=subject, paragraphs=paragraphs, link=clean.get(_LINK))
    return Mail(subject, "\n\n".join(paragraphs) + "\n", html + "\n")


def message(mail: Mail, *, sender: str, recipient: str, row_id: UUID, date: datetime) -> EmailMessage:
    """The mail as it is sent. Made again of the same row it has the same Message-ID, by which receivers drop doubles.

    Args:
        sender: ``Name <address>`` or an address; the ID's domain is the address's.
        recipient: one address, nothing else.
        row_id: of the outbox row.
        date: with a time zone.

    Raises:
        MailError: sender or recipient is no single address (this includes one with a line break).
    """
    name, given = _split(sender)
    origin, target = _address(given, name), _address(recipient)
    made = EmailMessage()
    made["From"] = origin
    made["To"] = target
    made["Subject"] = mail.subject
    made["Date"] = format_datetime(date)
    made["Message-ID"] = f"<{row_id}@{origin.domain}>"
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence note answers it
    made["X-Auto-Response-Suppress"] = "All"  # the same for Exchange
    made.set_content(mail.text)
    made.add_alternative(mail.html, subtype="html")
    return made


@cache
def _environment(*, html: bool) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(_FOLDER),
        undefined=StrictUndefined,
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _one_line(value: str) -> str:
    # Category C: control characters, and those that turn the direction of what follows.
    visible = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in value)
    text = _LOOKS_LIKE_LINK.sub("…", " ".join(visible.split()))
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _link(value: str) -> str:
    good = re.fullmatch(r"(https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/])[!-~]+", value)
    if not good or len(value) > 2000 or set(value) & set('"<>\\^`{|}'):
        raise MailError("the link is no address of a page")
    return value


def _split(sender: str) -> tuple[str, str]:
    found = re.fullmatch(r"([^<>\r\n]*)<([^<>\r\n]+)>\s*", sender)
    return (found[1].strip().strip('"'), found[2]) if found else ("", sender)


def _address(text: str, name: str = "") -> Address:
    # ASCII only: few servers take others, and two that look alike are a way to get somebody else's mail.
    if (
        not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", text)
        or len(text) > 254
    ):
        raise MailError("no e-mail address")
    try:
        return Address(display_name=name, addr_spec=text)
    except (ValueError, IndexError) as error:
        raise MailError("no e-mail address") from error
