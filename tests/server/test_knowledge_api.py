"""Documents over REST: taken in, refused with a reason, found, forgotten."""

import io

import httpx
import pypdf
import pytest
from fpdf import FPDF

from server.deps import Parts
from tests.support.world import TestTenant, count

DOCUMENTS, SEARCH = "/api/v1/knowledge/documents", "/api/v1/knowledge/search"
SENTENCE = "A full service of a bicycle costs 89 euros and takes two days."


def pdf(body: str) -> bytes:
    document = FPDF()
    document.set_font("Helvetica", size=11)
    document.add_page()
    if body:
        document.multi_cell(0, 6, body)
    return bytes(document.output())


def encrypted_pdf() -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(SENTENCE)))
    writer.encrypt("secret", algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


HTML = f"<html><body><h1>Prices</h1><article><p>{SENTENCE}</p><p>We are open all week.</p></article></body></html>"
GOOD = {
    "prices.pdf": (pdf(SENTENCE), "application/pdf"),
    "prices.md": (f"# Prices\n\n{SENTENCE}\n".encode(), "text/markdown"),
    "prices.html": (HTML.encode(), "text/html"),
    "prices.txt": (SENTENCE.encode(), "text/plain"),
}


async def upload(client: httpx.AsyncClient, staff: dict[str, str], name: str, data: bytes) -> httpx.Response:
    return await client.post(DOCUMENTS, files={"file": (name, data)}, headers=staff)


@pytest.mark.parametrize("name", sorted(GOOD))
async def test_each_format_is_taken_in_found_and_forgotten(
    client: httpx.AsyncClient, staff: dict[str, str], parts: Parts, tenant: TestTenant, name: str
) -> None:
    data, content_type = GOOD[name]
    answer = await upload(client, staff, name, data)
    assert answer.status_code == 201, answer.text
    document = answer.json()
    assert (document["filename"], document["content_type"], document["state"]) == (
        name,
        content_type,
        "extracted",
    )
    assert (document["size"], document["pages"], document["chunks"]) == (len(data), 1, 0)
    ask = {"query": "How much is a full service?"}
    assert (await client.post(SEARCH, json=ask, headers=staff)).json() == []  # not ready is not citable
    assert await parts.intake.process(tenant.context, document["id"]) == "ready"
    (found,) = (await client.post(SEARCH, json=ask, headers=staff)).json()
    assert (found["document_id"], found["page"]) == (document["id"], 1)
    assert SENTENCE in found["text"]

    again = (
        await upload(client, staff, f"copy-of-{name}", data)
    ).json()  # the same bytes are the same document
    assert (again["id"], again["filename"], again["state"]) == (document["id"], name, "ready")
    assert [one["id"] for one in (await client.get(DOCUMENTS, headers=staff)).json()] == [document["id"]]

    assert (await client.delete(f"{DOCUMENTS}/{document['id']}", headers=staff)).status_code == 204
    assert (await client.post(SEARCH, json=ask, headers=staff)).json() == []
    for method in ("GET", "DELETE"):
        gone = await client.request(method, f"{DOCUMENTS}/{document['id']}", headers=staff)
        assert gone.status_code == 404
    for table in ("documents", "document_pages", "chunks", "embeddings", "kb_terms", "kb_lengths"):
        assert await count(parts, tenant, table) == 0, table


BAD = {
    "broken": ("a.pdf", pdf(SENTENCE)[:200], "parse_failed"),
    "encrypted": ("a.pdf", encrypted_pdf(), "encrypted"),
    "textless": ("a.pdf", pdf(""), "needs_ocr"),
    "empty": ("a.txt", b"", "empty"),
    "blank": ("a.md", b" \n\n ", "empty"),
    "unknown kind": ("a.exe", b"MZ\x90\x00\x03\x00\x00\x00" * 20, "unsupported"),
}


async def test_what_cannot_be_read_is_refused_with_its_reason(
    client: httpx.AsyncClient, staff: dict[str, str], parts: Parts, tenant: TestTenant
) -> None:
    for what, (name, data, reason) in BAD.items():
        answer = await upload(client, staff, name, data)
        assert answer.status_code == 422, what
        error = answer.json()["error"]
        assert (error["code"], error["details"]) == (
            "VALIDATION_ERROR",
            {"reason": reason, "field": "file"},
        ), what
        assert error["message"]
    for table in ("documents", "document_pages", "knowledge_sources", "audit_log"):
        assert await count(parts, tenant, table) == 0, table


async def test_a_form_without_a_file_is_refused(
    client: httpx.AsyncClient, staff: dict[str, str], parts: Parts, tenant: TestTenant
) -> None:
    for given in ({"data": {"file": "text"}}, {"data": {"other": "x"}}, {"json": {"file": "x"}}):
        answer = await client.post(DOCUMENTS, headers=staff, **given)  # type: ignore[arg-type]  # one of several shapes
        assert answer.status_code == 415, given
    assert await count(parts, tenant, "documents") == 0


async def test_a_search_is_validated(client: httpx.AsyncClient, staff: dict[str, str]) -> None:
    for wrong, status in (
        ({"query": " "}, 422),
        ({"query": "x", "limit": 0}, 422),
        ({"query": "x", "limit": 51}, 422),
        ({}, 400),
    ):
        answer = await client.post(SEARCH, json=wrong, headers=staff)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, "VALIDATION_ERROR"), wrong
