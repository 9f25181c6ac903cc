"""Makes the demo's PDF documents from their Markdown sources: `python -m server.demo.make_pdfs`.

The PDFs are committed, so that a demo needs neither fpdf2 nor this script. The same sources give the same
bytes: the date is fixed and nothing is compressed, since zlib's output differs among its versions. The core
font Helvetica has no euro sign; the sources write "Euro".
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from fpdf import FPDF
from fpdf.enums import XPos, YPos

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "sources"
DOCUMENTS = HERE / "documents"

_DATE = datetime(2026, 1, 15, 9, 0, tzinfo=UTC)
_PAGE_BREAK = "---"
_FONT = "Helvetica"
_LINE = 5.4  # millimetres
_MARGIN = 20
_BULLET_INDENT = 5
_FIRST_COLUMN = 0.64
_TABLE_RULE = re.compile(r"\|(?:-+\|)+")


class _Sheet(FPDF):
    """A4 with a page number at the bottom."""

    def __init__(self, title: str, language: str) -> None:
        super().__init__(format="A4")
        self.set_compression(False)
        self.set_creation_date(_DATE)
        self.set_producer("Alpenrad")
        self.set_title(title)
        self.set_lang(language)
        self.set_margins(_MARGIN, _MARGIN)
        self.set_auto_page_break(auto=True, margin=_MARGIN)
        self.add_page()

    def footer(self) -> None:
        self.set_y(-15)
        self.set_font(_FONT, size=8)
        self.cell(0, 5, f"Alpenrad · {self.page_no()}", align="C")


def make_pdf(source: Path) -> bytes:
    """The PDF of a source: `# title`, `## heading`, paragraphs of one line, `- item`, tables, `---` at a
    page's end.

    The language is German when the source has umlauts, else English.

    Raises:
        ValueError: The source has no title, or holds a sign that Latin-1 does not have.
    """
    text = source.read_text(encoding="utf-8")
    title = re.match(r"# (.+)\n", text)
    if title is None:
        raise ValueError(f"{source.name} must begin with a title")
    try:
        text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(f"{source.name} holds {text[error.start]!r}, which Helvetica cannot show") from error
    sheet = _Sheet(title[1], "de" if re.search("[äöüß]", text) else "en")
    previous = ""
    for line in text.split("\n"):
        _write(sheet, line, in_table=previous.startswith("|"))
        previous = line
    return bytes(sheet.output())


def _write(sheet: _Sheet, line: str, *, in_table: bool) -> None:
    if line == _PAGE_BREAK:
        sheet.add_page()
    elif line.startswith("# "):
        sheet.set_font(_FONT, "B", 18)
        _paragraph(sheet, line[2:], 9)
        sheet.ln(3)
    elif line.startswith("## "):
        sheet.ln(3)
        sheet.set_font(_FONT, "B", 12)
        _paragraph(sheet, line[3:], 6.5)
    elif line.startswith("|"):
        if not _TABLE_RULE.fullmatch(line):
            _row(sheet, [cell.strip() for cell in line.strip("|").split("|")], head=not in_table)
    elif line.startswith("- "):
        sheet.set_font(_FONT, size=10.5)
        sheet.set_x(_MARGIN + _BULLET_INDENT)
        _paragraph(sheet, f"- {line[2:]}", _LINE)
    elif line:
        sheet.set_font(_FONT, size=10.5)
        _paragraph(sheet, line, _LINE)
        sheet.ln(1.5)


def _paragraph(sheet: _Sheet, text: str, height: float) -> None:
    sheet.multi_cell(0, height, text, new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def _row(sheet: _Sheet, cells: list[str], *, head: bool) -> None:
    """A row on one line: written in reading order, so that a text extractor gives it back in that order."""
    sheet.set_font(_FONT, "B" if head else "", 10)
    first = sheet.epw * (_FIRST_COLUMN if len(cells) == 2 else 0.4)
    rest = (sheet.epw - first) / max(1, len(cells) - 1)
    for number, cell in enumerate(cells):
        sheet.cell(rest if number else first, _LINE + 0.8, cell, border="B")
    sheet.ln()


def main() -> None:
    """Writes every source's PDF into the documents folder."""
    for source in sorted(SOURCES.glob("*.md")):
        (DOCUMENTS / f"{source.stem}.pdf").write_bytes(make_pdf(source))


if __name__ == "__main__":
    main()
