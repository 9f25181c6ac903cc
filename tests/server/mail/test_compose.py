"""Texts of mails, and what a value may not do to them."""

import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import SMTP as WIRE
from typing import get_args
from uuid import UUID

import pytest

from server.mail.compose import _FOLDER, LANGUAGES, TEMPLATES, Mail, MailError, Template, compose, message

LINK = "https://app.example/auth/verify#token=ver_abc-DEF_123"
VALUES = {
    "name": "Erika",
    "link": LINK,
    "expires": "14:30 UTC",
    "time": "1 March 2026, 14:00 UTC",
    "inviter": "Max",
    "tenant": "Hotel Alpenblick",
    "role": "editor",
    "device": "Firefox 130 on Linux",
    "country": "DE",
    "change": "a passkey was added",
    "reference": "E-7",
    "backups_until": "31 March 2026",
}
ROW = UUID(int=7)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def needed(template: Template, language: str) -> set[str]:
    text = (_FOLDER / f"{template}.{language}.j2").read_text()
    return set(re.findall(r"{{ (\w+) }}", text))


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_mail_in_every_language(template: Template, language: str) -> None:
    mail = compose(template, language, VALUES)
    assert mail.subject
    assert len(mail.subject) <= 78
    assert "\n" not in mail.subject
    for part in (mail.text, mail.html):
        assert "{" not in part.replace("{{", "{")
        for name in needed(template, language):
            assert VALUES[name] in part
    assert needed(template, "en") == needed(template, "de")
    assert ("link" in needed(template, "en")) == (f'<a href="{LINK}"' in mail.html)
    assert mail.html.count("<a ") <= 1
    assert f'<html lang="{language}">' in mail.html
    for name in needed(template, language):
        with pytest.raises(MailError, match=name):
            compose(template, language, {key: value for key, value in VALUES.items() if key != name})


def test_the_folder_holds_these_templates_and_no_others() -> None:
    wanted = {f"{template}.{language}.j2" for template in get_args(Template) for language in LANGUAGES}
    assert {path.name for path in _FOLDER.iterdir()} == wanted | {"layout.html.j2"}


def test_one_mail_word_for_word() -> None:
    assert compose("verify_email", "de-AT", VALUES).text == (
        "Guten Tag Erika,\n\nbitte bestätigen Sie, dass diese Adresse Ihnen gehört:\n\n"
        f"{LINK}\n\nDer Link gilt einmal und bis 14:30 UTC. Haben Sie das nicht angefordert, müssen Sie nichts tun: "
        "ohne den Link geschieht nichts.\n"
    )
    assert compose("verify_email", "fr", VALUES) == compose("verify_email", "en", VALUES)
    assert compose("verify_email", "../../etc", VALUES) == compose("verify_email", "en", VALUES)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<b>Max</b>", "&lt;b&gt;Max&lt;/b&gt;"),
        ("{{ 7*7 }}{% raw %}", "{{ 7*7 }}{% raw %}"),
        ("{{ ''.__class__ }}", "{{ &#39;&#39;.__class__ }}"),
        ("Max\r\nBcc: a@b.example\u2028\u202e", "Max Bcc: a@b.example"),
        ("Win at https://evil.example/x now", "Win at … now"),
        ("HTTP://evil.example", "…"),
        ("www.evil.example", "…"),
        ("evil.example/prize", "…"),
        ("Dr. Max Müller-Lüdenscheidt jr.", "Dr. Max Müller-Lüdenscheidt jr."),
        ("x" * 500, "x" * 119 + "…"),
    ],
)
def test_values_are_text_in_one_line_without_links(name: str, shown: str) -> None:
    mail = compose("invitation", "en", {**VALUES, "inviter": name})
    assert f"<p>{shown} invites you to work" in mail.html
    assert mail.html.count("<a ") == 1
    assert mail.text.splitlines()[0] == "Hello,"
    assert "evil" not in mail.text + mail.subject


@pytest.mark.parametrize(
    "link",
    ["javascript:alert(1)", "http://app.example/", "https://", "https://a b", 'https://a/"onclick="x', "", "https://a/\n",
     "https://a/" + "x" * 2000, "http://localhost.evil.example/"],
)  # fmt: skip
def test_a_link_must_be_one(link: str) -> None:
    with pytest.raises(MailError, match="no address of a page"):
        compose("verify_email", "en", {**VALUES, "link": link})


def test_an_unknown_template_is_refused() -> None:
    unknown: Template = "layout.html"  # type: ignore[assignment]  # what a caller without types could send
    with pytest.raises(MailError, match="no template"):
        compose(unknown, "en", VALUES)


def test_headers_of_a_mail() -> None:
    mail = compose("invitation", "de", {**VALUES, "inviter": "Jörg"})
    made = message(
        mail, sender="AI Secretary <no-reply@app.example>", recipient="e@x.example", row_id=ROW, date=NOW
    )
    parsed = message_from_bytes(made.as_bytes(policy=WIRE), policy=WIRE)
    assert {
        name: str(value) for name, value in parsed.items() if name not in {"Content-Type", "MIME-Version"}
    } == {
        "From": "AI Secretary <no-reply@app.example>",
        "To": "e@x.example",
        "Subject": "Jörg lädt Sie zu Hotel Alpenblick ein",
        "Date": "Sun, 01 Mar 2026 12:00:00 +0000",
        "Message-ID": "<00000000-0000-0000-0000-000000000007@app.example>",
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
    }
    assert parsed.get_content_type() == "multipart/alternative"
    text, html = list(parsed.iter_parts())
    assert (text.get_content_type(), text.get_content().replace("\r\n", "\n")) == ("text/plain", mail.text)
    assert (html.get_content_type(), html.get_content().replace("\r\n", "\n")) == ("text/html", mail.html)
    assert all(byte < 128 for byte in made.as_bytes(policy=WIRE))


WRONG = ["", "nobody", "a@b.example\r\nBcc: c@d.example", "a@b.example, c@d.example", "A <a@b.example>", "a b@c.example",
         "a@b.example\n", "é@b.example", "a@bücher.example", '"a\r\nb"@c.example', "a@b.example" + "e" * 250, "..a@b.example"]  # fmt: skip


@pytest.mark.parametrize("recipient", WRONG)
def test_one_recipient_and_nothing_else(recipient: str) -> None:
    with pytest.raises(MailError, match="no e-mail address"):
        message(Mail("s", "t", "h"), sender="no-reply@app.example", recipient=recipient, row_id=ROW, date=NOW)


def test_no_line_break_gets_into_a_header() -> None:
    with pytest.raises(MailError):
        message(
            Mail("s", "t", "h"),
            sender="A\r\nX: y <a@b.example>",
            recipient="a@b.example",
            row_id=ROW,
            date=NOW,
        )
    with pytest.raises(ValueError):
        message(
            Mail("s\r\nBcc: x@y.example", "t", "h"),
            sender="a@b.example",
            recipient="a@b.example",
            row_id=ROW,
            date=NOW,
        )
