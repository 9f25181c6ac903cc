"""Every file ends as pages of text or in a named state; hostile ones take down only their child process."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
import unicodedata
import zlib
from pathlib import Path

import psutil
import pypdf
import pytest
from fpdf import FPDF
from fpdf.enums import AccessPermission

from ingest.parsers import IngestError, Page, ParseLimits, parse
from ingest.parsers.markdown import first_heading
from ingest.parsers.normalise import clean, clean_page, without_running_lines
from ingest.parsers.text import decode

ROOT = Path(__file__).resolve().parents[2]
GERMAN = "Die Werkstatt prüft Bremsen, Schaltung und Reifen. Der Service dauert zwei Tage."


def pdf(*pages: str, title: str | None = None) -> FPDF:
    document = FPDF()
    document.set_font("Helvetica", size=11)
    if title:
        document.set_title(title)
    for text in pages:
        document.add_page()
        if text:
            document.multi_cell(0, 6, text)
    return document


def raw_pdf(stream: bytes, extra: str = "") -> bytes:
    """A minimal one-page PDF around a content stream."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        f"<</Length {len(stream)}{extra}>>\nstream\n".encode() + stream + b"\nendstream",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    out += f"trailer\n<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{table}\n%%EOF\n".encode()
    return bytes(out)


async def fails(data: bytes, filename: str, *, limits: ParseLimits | None = None) -> IngestError:
    with pytest.raises(IngestError) as caught:
        await parse(data, filename, limits=limits or ParseLimits())
    return caught.value


async def test_pdf_pages_title_language() -> None:
    data = bytes(pdf(GERMAN, "", "Preise gelten ab Januar 2026.", title="Preisliste").output())
    found = await parse(data, "liste.PDF")
    assert found.pages == [Page(1, GERMAN), Page(2, ""), Page(3, "Preise gelten ab Januar 2026.")]
    assert (found.title, found.language, found.content_type) == ("Preisliste", "de", "application/pdf")
    assert found.parser == f"pypdf {pypdf.__version__}"


async def test_pdf_without_a_title_is_called_by_its_name() -> None:
    data = bytes(pdf("We repair bicycles of every make, and we lend one.").output())
    assert (await parse(data, "C:\\docs\\price_list.pdf")).title == "price list"


async def test_pdf_with_an_owner_password_only_is_read() -> None:
    document = pdf(GERMAN)
    document.set_encryption(owner_password="secret", permissions=AccessPermission.none())
    assert (await parse(bytes(document.output()), "a.pdf")).pages == [Page(1, GERMAN)]


async def test_pdf_with_a_user_password_is_encrypted() -> None:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(bytes(pdf(GERMAN).output())))
    writer.encrypt("secret", algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    error = await fails(buffer.getvalue(), "a.pdf")
    assert error.code == "encrypted"
    assert "without a password" in error.message


async def test_pdf_without_any_text_needs_ocr() -> None:
    error = await fails(bytes(pdf("", "").output()), "scan.pdf")
    assert error.code == "needs_ocr"
    assert "OCR" in error.message


async def test_truncated_pdf_does_not_pass_as_empty() -> None:
    data = bytes(pdf(GERMAN).output())
    assert (await fails(data[:300], "a.pdf")).code == "parse_failed"
    assert (await fails(b"%PDF-1.7\n", "a.pdf")).code == "parse_failed"


async def test_flate_bomb_is_too_large_and_quick() -> None:
    zeros = zlib.compressobj(9)
    once = zeros.compress(bytes(400 << 20)) + zeros.flush()
    twice = zlib.compress(once, 9)
    assert len(twice) < 4_000
    started = time.monotonic()
    error = await fails(raw_pdf(twice, "/Filter[/FlateDecode/FlateDecode]"), "bomb.pdf")
    assert error.code == "too_large"
    assert time.monotonic() - started < 60


async def test_endless_pdf_is_stopped_by_its_cpu_limit() -> None:
    stream = zlib.compress(b"BT /F 9 Tf (a) Tj ET\n" * 2_000_000)
    limits = ParseLimits(cpu_seconds=2, cpu_seconds_per_page=0, cpu_seconds_max=3)
    error = await fails(raw_pdf(stream, "/Filter/FlateDecode"), "slow.pdf", limits=limits)
    assert error.code == "parse_crashed"


async def test_memory_limit_ends_the_child_not_the_parent() -> None:
    data = b"word " * (8 << 20)
    limits = ParseLimits(memory_bytes=100 << 20, max_chars=100_000_000)
    assert (await fails(data, "a.txt", limits=limits)).code == "parse_crashed"


async def test_wall_limit_kills_the_child() -> None:
    assert (await fails(b"# text", "a.md", limits=ParseLimits(wall_seconds=0.01))).code == "parse_crashed"
    assert children() == []


async def test_cancelled_parse_leaves_no_process() -> None:
    task = asyncio.create_task(parse(GERMAN.encode(), "a.txt"))
    while not children():
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children() == []


def children() -> list[str]:
    return [
        " ".join(c.cmdline())
        for c in psutil.Process().children()
        if "ingest.parsers" in " ".join(c.cmdline())
    ]


async def test_size_page_and_character_limits() -> None:
    assert (await fails(b"x" * 2_000_000, "a.txt", limits=ParseLimits(max_bytes=1 << 20))).code == "too_large"
    three = bytes(pdf("one", "two", "three").output())
    error = await fails(three, "a.pdf", limits=ParseLimits(max_pages=2))
    assert (error.code, "3 pages" in error.message) == ("too_large", True)
    assert (await fails(three, "a.pdf", limits=ParseLimits(max_chars=9))).code == "too_large"
    assert (await fails(b"ten letters", "a.txt", limits=ParseLimits(max_chars=9))).code == "too_large"


@pytest.mark.parametrize(
    ("data", "filename", "code"),
    [
        (b"", "a.pdf", "empty"),
        (b"", "a.txt", "empty"),
        (b" \r\n\t\x00\n", "a.md", "empty"),
        (b"***\n---\n", "a.md", "empty"),
        (b"<html><body></body></html>", "a.html", "empty"),
        (b"x", "a.pdf", "unsupported"),
        (b"x", "a.html", "unsupported"),
        (b"plain text", "a.pdf", "unsupported"),
        (b"%PDF-1.4 whatever", "a.txt", "unsupported"),
        (b"PK\x03\x04rest", "a.pdf", "unsupported"),
        (b"PK\x03\x04rest", "a.docx", "unsupported"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", "a.txt", "unsupported"),
        (b"\x89PNG\r\n\x1a\nrest", "a.md", "unsupported"),
        (b"\x89PNG\r\n\x1a\nrest", "a.png", "unsupported"),
        (bytes(range(1, 32)) * 40, "a.txt", "unsupported"),
        (b"text", "noending", "unsupported"),
        (b"text", ".pdf", "unsupported"),
        (b"text", "a.exe", "unsupported"),
    ],
)
async def test_odd_files_end_in_a_named_state(data: bytes, filename: str, code: str) -> None:
    error = await fails(data, filename)
    assert error.code == code
    assert error.message.endswith(".")


async def test_one_byte_text_is_a_document() -> None:
    found = await parse(b"x", "a.txt")
    assert (found.pages, found.title, found.language) == ([Page(1, "x")], "a", None)


async def test_text_encodings_and_nul_bytes() -> None:
    assert (await parse("Größe:\x00 5 €".encode("cp1252"), "a.txt")).pages == [Page(1, "Größe: 5 €")]
    assert decode("Größe".encode("utf-8-sig")) == "Größe"
    assert decode("Größe".encode("utf-16")) == "Größe"
    assert decode("Größe".encode("utf-32")) == "Größe"
    assert decode("Größe".encode()) == "Größe"
    assert decode(b"\x81") == "\ufffd"


async def test_markdown_is_kept_as_written() -> None:
    source = "Intro\n\n# Opening *hours*\n\n| Day | Time |\n|---|---|\n| Monday | closed |\n"
    found = await parse(source.replace("\n", "\r\n").encode(), "hours.md")
    assert found.pages == [Page(1, source)]
    assert (found.title, found.language, found.content_type) == ("Opening *hours*", "en", "text/markdown")


def test_first_heading_ignores_code_and_knows_underlines() -> None:
    assert first_heading("```\n# code\n```\n## Real ##\n") == "Real"
    assert first_heading("Title\n=====\n\n# Other") == "Title"
    assert first_heading("no heading\n\n---\n#tag") is None


async def test_html_gives_the_main_text_only() -> None:
    page = (
        "<!doctype html><html><head><title>Delivery | Alpenrad</title><script>var a = 1</script></head><body>"
        "<nav><a href='/'>Home</a><a href='/shop'>Shop</a></nav><main><h1>Delivery</h1>"
        f"<p>{'We bring your bicycle to your door within three working days. ' * 4}</p>"
        "<h2>Zones</h2><table><tr><td>Innsbruck</td><td>29 euro</td></tr></table>"
        "<img src='http://127.0.0.1:9/pixel.png'></main><footer>Imprint</footer></body></html>"
    )
    found = await parse(page.encode(), "delivery.html")
    text = found.pages[0].text
    assert text.startswith("# Delivery\n\nWe bring your bicycle to your door")
    assert "## Zones" in text
    assert "| Innsbruck | 29 euro |" in text
    assert not any(word in text for word in ("Home", "Imprint", "var a"))
    assert (found.title, found.language, found.content_type) == ("Delivery", "en", "text/html")


def test_page_text_is_normalised() -> None:
    assert clean_page("zwei Werk-\ntage") == "zwei Werktage"
    assert clean_page("Fahr\u00ad\nrad Fahr\u00adrad Fahr\x02\nrad") == "Fahrrad Fahrrad Fahrrad"
    assert clean_page("E-\nBike und Ein-\nund Ausbau") == "E-\nBike und Ein-\nund Ausbau"
    assert clean_page("Ga\u0308ste \ufb01nden\u00a0 \u2009Kaﬀee\x00") == "Gäste finden Kaffee"
    assert clean_page("a\r\n\n\n\nb  \n") == "a\n\nb"
    assert clean("\ufeffa\r\nb\x00\x07\tc  d") == "a\nb\tc  d"
    assert unicodedata.is_normalized("NFC", clean(unicodedata.normalize("NFD", "Äpfel für Ötzi")))


def test_running_headers_and_footers_are_removed() -> None:
    pages = [
        f"Alpenrad Preisliste\nText {word}\nmore {word}\nSeite {n} von 3" for n, word in enumerate("abc", 1)
    ]
    assert without_running_lines(pages) == [f"Text {word}\nmore {word}" for word in "abc"]
    assert without_running_lines(pages[:2]) == pages[:2]
    assert without_running_lines(["one", "two", "three"]) == ["one", "two", "three"]


def test_the_child_reaches_no_network_and_starts_no_process() -> None:
    program = (
        "import sys, socket, subprocess; sys.path.insert(0, sys.argv[1])\n"
        "from ingest.parsers.child import confine; from ingest.parsers import ParseLimits\n"
        "confine(ParseLimits())\n"
        "for act in (lambda: socket.create_connection(('127.0.0.1', 9)), lambda: subprocess.run(['true'])):\n"
        "    try: act()\n"
        "    except PermissionError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(ROOT)], env={}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "socket.getaddrinfo is not allowed while a document is parsed",
        "subprocess.Popen is not allowed while a document is parsed",
    ]


async def test_the_child_sees_nothing_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A module of the caller's folder or PYTHONPATH that shadows a parser must not be imported.
    (tmp_path / "pypdf.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert (await parse(bytes(pdf(GERMAN).output()), "a.pdf")).pages == [Page(1, GERMAN)]
    assert os.environ["PYTHONPATH"] == str(tmp_path)
