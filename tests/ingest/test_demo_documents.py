"""The demo's documents read back as they were written; every question has its answer where it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.parsers import Parsed, parse
from server.demo.make_pdfs import DOCUMENTS, HERE, SOURCES, make_pdf
from storage.quotes import locate, squash

QUESTIONS: list[dict[str, Any]] = yaml.safe_load((HERE / "questions.yaml").read_text(encoding="utf-8"))
NAMES = sorted(path.name for path in DOCUMENTS.iterdir())
LANGUAGES = {
    "delivery-and-assembly.md": "en",
    "invoices-payments-refunds.pdf": "en",
    "leasing-leitfaden.pdf": "de",
    "oeffnungszeiten-und-kontakt.md": "de",
    "preisliste-werkstatt.pdf": "de",
    "rental-terms.pdf": "en",
    "warranty-and-returns.md": "en",
    "werkstatt-faq.md": "de",
}


@pytest.fixture(scope="module")
async def parsed() -> dict[str, Parsed]:
    return {name: await parse((DOCUMENTS / name).read_bytes(), name) for name in NAMES}


@pytest.mark.parametrize("source", sorted(SOURCES.glob("*.md")), ids=lambda path: path.stem)
def test_committed_pdf_is_what_its_source_gives(source: Path) -> None:
    assert (DOCUMENTS / f"{source.stem}.pdf").read_bytes() == make_pdf(source)


@pytest.mark.parametrize("source", sorted(SOURCES.glob("*.md")), ids=lambda path: path.stem)
def test_pdf_reads_back_in_the_order_of_its_source(source: Path, parsed: dict[str, Parsed]) -> None:
    sides = source.read_text(encoding="utf-8").split("\n---\n")
    pages = parsed[f"{source.stem}.pdf"].pages
    assert len(pages) == len(sides)
    for page, side in zip(pages, sides, strict=True):
        body = re.sub(r"\nAlpenrad · \d\Z", "", page.text)
        assert squash(body)[0] == squash(side)[0]


def test_languages_and_titles_are_recognised(parsed: dict[str, Parsed]) -> None:
    assert {name: found.language for name, found in parsed.items()} == LANGUAGES
    assert parsed["rental-terms.pdf"].title == "Alpenrad: Rental Terms"
    assert parsed["werkstatt-faq.md"].title == "Werkstatt und Termine: häufige Fragen"


def test_questions_cover_every_document_in_its_language() -> None:
    assert len(QUESTIONS) >= 24
    assert {(question["document"], question["language"]) for question in QUESTIONS} == set(LANGUAGES.items())
    assert len({question["question"] for question in QUESTIONS}) == len(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["question"][:40])
def test_answer_stands_on_its_page(question: dict[str, Any], parsed: dict[str, Parsed]) -> None:
    text = parsed[question["document"]].pages[question["page"] - 1].text
    wanted = question["must_contain"]
    assert wanted in " ".join(text.split())
    if len(squash(wanted)[0]) >= 20:
        assert locate(wanted, text) is not None


def test_contact_details_are_fictional() -> None:
    everything = "".join(
        path.read_text(encoding="utf-8") for path in [*SOURCES.iterdir(), *DOCUMENTS.glob("*.md")]
    )
    assert {address.split("@")[1] for address in re.findall(r"[\w.]+@[\w.]+\w", everything)} == {
        "alpenrad.example"
    }
    # +49 89 99998 000 to 999 is kept free for films and books by the German regulator (Bundesnetzagentur).
    phones = re.findall(r"\+[\d ]{8,}\d", everything)
    assert phones
    assert all(re.fullmatch(r"\+49 89 99998 \d{3}", phone) for phone in phones)
