"""Files from strangers."""

import zipfile
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.protection import uploads
from server.protection.uploads import (
    UploadRefused,
    check_upload,
    check_zip,
    content_disposition,
    download_headers,
    safe_file_name,
)


def packed(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def office(part: str, **more: bytes) -> bytes:
    return packed({"[Content_Types].xml": b"<Types/>", f"{part}/document.xml": b"<x/>", **more})


SAMPLES = {
    "pdf": b"%PDF-1.7\n%...",
    "docx": office("word"),
    "xlsx": office("xl"),
    "pptx": office("ppt"),
    "txt": "Grüße\n".encode(),
    "md": b"# Title",
    "html": b"<!doctype html><p>x",
    "csv": "a;b\nü;2".encode("cp1252"),
    "json": b'{"a": 1}',
    "png": b"\x89PNG\r\n\x1a\n....",
    "jpg": b"\xff\xd8\xff\xe0....",
    "webp": b"RIFF\x04\0\0\0WEBPVP8 ",
    "gif": b"GIF89a....",
    "ogg": b"OggS\0....",
    "mp3": b"\xff\xfb\x90\x64....",
    "mp4": b"\0\0\0\x18ftypmp42",
    "wav": b"RIFF\x04\0\0\0WAVEfmt ",
    "webm": b"\x1a\x45\xdf\xa3....",
}


def reason(name: str, data: bytes, media_type: str | None = None, max_bytes: int = 10_000_000) -> str:
    with pytest.raises(UploadRefused) as caught:
        check_upload(name, media_type, data, max_bytes=max_bytes)
    assert caught.value.details == {"reason": caught.value.reason}
    return caught.value.reason


@pytest.mark.parametrize("extension", sorted(SAMPLES))
def test_each_kind_is_known_by_its_name_and_bytes(extension: str) -> None:
    kind = check_upload(f"File.{extension.upper()}", None, SAMPLES[extension], max_bytes=100_000)
    assert kind.extension == extension
    assert check_upload(f"f.{extension}", kind.media_type, SAMPLES[extension], max_bytes=100_000) is kind


@pytest.mark.parametrize("extension", sorted(SAMPLES))
def test_no_kind_passes_for_another(extension: str) -> None:
    text = {"txt", "md", "html", "csv", "json"}
    for other in set(SAMPLES) - {extension}:
        if {extension, other} <= text:
            continue
        assert reason(f"f.{extension}", SAMPLES[other]) == "content", other


@pytest.mark.parametrize(
    ("name", "media_type", "data", "why"),
    [
        ("f.exe", None, b"MZ", "kind"),
        ("f.svg", "image/svg+xml", b"<svg/>", "kind"),
        ("f", None, b"x", "kind"),
        ("f.pdf.exe", None, SAMPLES["pdf"], "kind"),
        ("f.pdf", "text/html", SAMPLES["pdf"], "kind"),
        ("f.txt", "text/html", b"x", "kind"),
        ("f.txt", None, b"MZ\x90", "content"),
        ("f.txt", None, b"a\0b", "content"),
        ("f.txt", None, b"\x1b[31mred", "content"),
        ("f.txt", None, b"\x7fELF", "content"),
        ("f.txt", None, b"", "empty"),
        ("f.docx", None, packed({"word/document.xml": b"x"}), "content"),
        ("f.docx", None, packed({"[Content_Types].xml": b"x", "a": b"x"}), "content"),
        ("f.docx", None, b"PK\x03\x04 and then nothing", "content"),
        ("f.docx", None, office("word", **{"word/vbaProject.bin": b"x"}), "macros"),
        ("../f.txt", None, b"x", "name"),
    ],
)
def test_what_is_not_taken(name: str, media_type: str | None, data: bytes, why: str) -> None:
    assert reason(name, data, media_type) == why


def test_size_and_choice_of_kinds() -> None:
    assert check_upload("f.txt", None, b"x" * 10, max_bytes=10).extension == "txt"
    assert reason("f.txt", b"x" * 11, max_bytes=10) == "size"
    with pytest.raises(UploadRefused) as caught:
        check_upload("f.txt", None, b"x", max_bytes=10, kinds={"pdf"})
    assert caught.value.reason == "kind"


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "..",
        "...",
        "a/b.txt",
        "a\\b.txt",
        "../../etc/passwd",
        "C:\\x.txt",
        "a:b.txt",
        "a\0.txt",
        "a\n.txt",
        "a\r\nSet-Cookie: x.txt",
        "a\x7f.txt",
        "invoice\u202efdp.exe",
        "a\u2066b.txt",
        "a\u200bb.txt",
        "a\ufeff.txt",
        "a\u2028.txt",
        "\ud800.txt",
        ".htaccess",
        "-rf.txt",
        "~x.txt",
        " a.txt",
        "a.txt ",
        "a.txt.",
        "con",
        "CON.txt",
        "nul.tar.gz",
        "com1.txt",
        "LPT9",
        'a"b.txt',
        "a<b>.txt",
        "a|b.txt",
        "a*.txt",
        "x" * 252 + ".txt",
        "ü" * 126 + ".txt",
    ],
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(UploadRefused) as caught:
        safe_file_name(name)
    assert caught.value.reason == "name"


@pytest.mark.parametrize(
    "name", ["a.txt", "Angebot für März (2).pdf", "名前.docx", "console.txt", "x" * 251 + ".txt", "a..b.txt"]
)
def test_names_that_are_taken(name: str) -> None:
    assert safe_file_name(name) == name


def test_a_name_has_one_form() -> None:
    assert safe_file_name("u\u0308.txt") == "ü.txt"


def test_zip_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_zip(packed({"a": b"x" * 1000})).namelist() == ["a"]
    bomb = packed({"a": b"\0" * 20_000_000})
    assert reason("f.docx", office("word", **{"word/big": b"\0" * 20_000_000})) == "bomb"
    for content in (bomb, packed({f"{n}": b"\0" * 900_000 for n in range(30)})):
        with pytest.raises(UploadRefused) as caught:
            check_zip(content)
        assert (caught.value.reason, caught.value.code, caught.value.status) == ("bomb", "TOO_LARGE", 413)
    many = packed({f"{number}": b"" for number in range(10_001)}, zipfile.ZIP_STORED)
    with pytest.raises(UploadRefused, match="10000"):
        check_zip(many)
    monkeypatch.setattr(uploads, "MAX_UNPACKED", 999)
    with pytest.raises(UploadRefused):
        check_zip(packed({"a": b"x" * 1000}))


def test_files_that_overlap_are_a_bomb() -> None:
    """Fifield's construction in small: many entries in the directory point to the same packed bytes."""
    content = packed({"a": bytes(range(256)) * 40}, zipfile.ZIP_STORED)
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry, tail = content[start:end], bytearray(content[end:])
    copies = 50
    tail[8:10] = tail[10:12] = copies.to_bytes(2, "little")
    tail[12:16] = (len(entry) * copies).to_bytes(4, "little")
    with pytest.raises(UploadRefused) as caught:
        check_zip(content[:start] + entry * copies + bytes(tail))
    assert caught.value.reason == "bomb"


def test_encrypted_entries() -> None:
    content = bytearray(packed({"a": b"x"}))
    at = content.index(b"PK\x01\x02") + 8
    content[at] |= 1
    with pytest.raises(UploadRefused) as caught:
        check_zip(bytes(content))
    assert caught.value.reason == "encrypted"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..\\x", "\\x", "C:/x", "a/.."])
def test_entries_that_lead_out(name: str) -> None:
    with pytest.raises(UploadRefused) as caught:
        check_zip(packed({name: b"x"}))
    assert caught.value.reason == "path"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.txt", "attachment; filename=\"a.txt\"; filename*=UTF-8''a.txt"),
        ("für 5€.pdf", "attachment; filename=\"fur 5.pdf\"; filename*=UTF-8''f%C3%BCr%205%E2%82%AC.pdf"),
        ('x"; y.txt', "attachment; filename=\"x__ y.txt\"; filename*=UTF-8''x%22%3B%20y.txt"),
        ("名.pdf", "attachment; filename=\"download.pdf\"; filename*=UTF-8''%E5%90%8D.pdf"),
        ("名", "attachment; filename=\"download\"; filename*=UTF-8''%E5%90%8D"),
    ],
)
def test_content_disposition(name: str, header: str) -> None:
    assert content_disposition(name) == header


@given(st.text())
def test_no_name_breaks_out_of_the_header(name: str) -> None:
    header = content_disposition(name)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
    assert header.count(";") == 2


def test_downloads_are_saved_and_never_shown() -> None:
    headers = download_headers("a.html")
    assert headers["content-disposition"].startswith("attachment;")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
