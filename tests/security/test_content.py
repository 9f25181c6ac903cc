"""What people write, wherever it goes: it stays text in answers, headers, prompts, files and paths."""

from contextlib import suppress
from pathlib import Path

import pytest
from litestar import Litestar

from ingest.parsers import IngestError, ParseLimits, parse
from server.deps import Parts
from server.protection.uploads import check_upload
from storage.errors import AppError
from tests.sandbox.openai import OpenAISandbox
from tests.server.auth.people import Device
from tests.support.edge import signed_in
from tests.support.world import TestTenant, Visitor, answering, make_visitor

CONTACTS = "/api/v1/crm/contacts"
SCRIPTS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "</textarea><iframe srcdoc='<script>1</script>'>",
    "[x](javascript:alert(1)) ![x](data:text/html,<b>)",
    "\\u003cscript\\u003e ',constructor:{} \"}]}",
    "{{constructor.constructor('alert(1)')()}} ${7*7} #{7*7} <%= 7*7 %>",
    "a\u2028b\u2029c</script><!--",
)
TEMPLATES = ("{{''.__class__.__mro__[1].__subclasses__()}}", "{% for x in ().__class__.__base__.__subclasses__() %}{{x}}{% endfor %}",
             "{{ 7*191 }}", "{0.__class__}", "%(password)s %n", "${7*191}", "{% include '/etc/passwd' %}")  # fmt: skip


def of_staff(app: Litestar, tenant: TestTenant) -> Device:
    return Device(app, token=signed_in(app, tenant)["authorization"].removeprefix("Bearer "))


@pytest.mark.parametrize("script", SCRIPTS)
async def test_what_people_write_is_data_in_every_answer(
    running: Litestar, parts: Parts, tenant: TestTenant, script: str
) -> None:
    visitor = await make_visitor(parts, tenant)
    await visitor.write(script)
    staff = of_staff(running, tenant)
    made = await staff.post(
        CONTACTS, {"email": "a@b.example", "name": script.translate({0x2028: None, 0x2029: None})}
    )
    assert made.status_code == 201
    shown = await staff.get(f"/api/v1/inbox/threads/{visitor.thread_id}/messages")
    texts = [message["text"] for message in shown.json()]
    assert texts == [script]
    for answer in (
        made,
        shown,
        await staff.get(f"{CONTACTS}/{made.json()['id']}"),
        await staff.get(f"/api/v1/inbox/threads/{script}"),
    ):
        assert answer.headers["content-type"].split(";")[0] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        answer.json()  # one document, whatever stands in it
    # What a page of ours is made of is never taken from an address.
    for path in ("/docs", "/account"):
        assert "alert(1)" not in (await Device(running).get(f"{path}?x={script}")).text


@pytest.mark.parametrize("break_", ["\r\n", "\n", "\r", "%0d%0a", "\u560a\u560d"])
async def test_no_value_ends_a_header(running: Litestar, tenant: TestTenant, break_: str) -> None:
    evil = f"x{break_}Set-Cookie: evil=1{break_}{break_}<script>"
    staff = of_staff(running, tenant)
    answers = [
        await staff.post(CONTACTS, {"email": "a@b.example", "name": evil}),
        await staff.get(f"/api/v1/inbox/threads?cursor={evil.replace(break_, '%0d%0a')}"),
        await staff.get("/widget/v1/x%0d%0aSet-Cookie:%20evil=1"),
        await Device(running).get("/api/v1/auth/sso/x%0d%0aLocation:%20https:%2f%2fevil.example"),
        await Device(running).get("/api/v1/auth/sso/acme?next=%0d%0aLocation:%20https:%2f%2fevil.example"),
    ]
    for answer in answers:
        assert answer.status_code < 500
        assert "evil" not in "".join(f"{name}{value}" for name, value in answer.headers.items())
        assert "set-cookie" not in answer.headers
        assert "location" not in answer.headers


@pytest.mark.parametrize("template", TEMPLATES)
async def test_a_template_in_a_message_stays_text(
    scripted: OpenAISandbox, parts: Parts, tenant: TestTenant, visitor: Visitor, template: str
) -> None:
    """The model is sent the words as they were written, and its own answer is no template either."""
    scripted.script('{"agent": "support", "confidence": 0.9, "language": "en"}', f"You wrote {template}")
    await visitor.write(f"What is {template}?")
    async with answering(parts) as job:
        await job.drain(tenant.info.id, visitor.thread_id)
    sent = str(scripted.requests)
    assert "1337" not in sent  # 7 * 191
    assert "<class" not in sent
    assert "root:x:" not in sent
    (reply,) = await visitor.replies()
    assert reply.text is not None
    assert "1337" not in reply.text
    assert "<class" not in reply.text


async def test_a_picture_that_can_run_scripts_is_not_taken(running: Litestar, tenant: TestTenant) -> None:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    for name in ("logo.svg", "logo.png", "logo.pdf"):
        with pytest.raises(AppError):
            check_upload(name, "image/svg+xml", svg, max_bytes=1_000_000)
    with pytest.raises(IngestError):
        await parse(svg, "logo.svg", limits=ParseLimits())


async def test_an_entity_in_a_document_reads_no_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the canary sings")
    page = f"""<?xml version="1.0"?><!DOCTYPE html [<!ENTITY x SYSTEM "{secret.as_uri()}"><!ENTITY y "{"z" * 100}">]>
    <html><head><title>A page</title></head><body><article><p>Our workshop is open on Monday and Tuesday. &x; &y; The service takes
    two days, and we call you when the bicycle is ready to be fetched. Please bring your receipt with you.</p></article></body></html>"""
    found = await parse(page.encode(), "page.html")
    text = " ".join(one.text for one in found.pages)
    assert "workshop is open" in text
    assert "canary" not in text


@pytest.mark.parametrize(
    "name",
    [
        "../../../evil.md",
        "..\\..\\evil.md",
        "/etc/cron.d/evil.md",
        "a/../../evil.md",
        "%2e%2e%2fevil.md",
        "evil.md\x00.pdf",
    ],
)
async def test_a_file_s_name_leads_nowhere(parts: Parts, tenant: TestTenant, name: str) -> None:
    """Files are stored under ids; the name is kept, sealed, for people to read."""
    folder = parts.storage.data_dir.resolve()
    around = set(folder.parent.glob("*"))
    # A name that cannot be a file's is refused, any other only read.
    with suppress(AppError):
        await parts.intake.accept(tenant.context, f"# Hours\n\nOpen on Monday. {name!r}".encode(), name)
    assert [path for path in folder.rglob("*") if "evil" in path.name] == []
    assert set(folder.parent.glob("*")) == around
    assert not Path("/etc/cron.d/evil.md").exists()
