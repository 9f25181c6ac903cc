"""A quote is located exactly where it stands, and what the page does not say is not found."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.quotes import locate, squash

PAGE = (
    "Reparatur und Service\n"
    "Ein Jahresservice für Stadträder kostet 89,00 Euro und dauert zwei Werk-\n"
    "tage. Für E-Bikes gilt ein Aufschlag von 1.5 % je Monat. Montag geschlossen.\n"
    "Der Käufer erhält 15 % Nachlass auf jedes zweite Fahrrad, außer auf Kinderräder.\n"
    "Telefon: +43 512 555 0142"
)


def found(quote: str, page: str = PAGE) -> str | None:
    span = locate(quote, page)
    return None if span is None else page[span[0] : span[1]]


def test_letters_and_digits_with_their_origin() -> None:
    assert squash("Ab 1,5 ﬁx – Größe") == ("ab15fixgrösse", [0, 1, 3, 5, 7, 7, 8, 12, 13, 14, 15, 15, 16])


def test_blanks_hyphens_quotation_marks_and_case_do_not_matter() -> None:
    assert found("dauert zwei Werktage. Für e-bikes gilt") == "dauert zwei Werk-\ntage. Für E-Bikes gilt"
    assert found("„der  käufer erhält 15% nachlass“") == "Der Käufer erhält 15 % Nachlass"


def test_composed_and_decomposed_umlauts_are_the_same() -> None:
    quote = "außer auf Kinderräder"
    nfd = unicodedata.normalize("NFD", PAGE)
    assert found(unicodedata.normalize("NFD", quote)) == quote
    assert found(quote, nfd) == unicodedata.normalize("NFD", quote)
    assert found("Kinderräder nach außen", nfd) is None
    assert found("für jedes schöne Fahrradmodell", "für jedes schone Fahrradmodell") is None


def test_decomposed_mark_at_the_end_belongs_to_the_span() -> None:
    page = unicodedata.normalize("NFD", "Zu jedem Rad gibt es ein Souvenir mit Café")
    assert found("gibt es ein Souvenir mit Café", page) == page[13:]


@pytest.mark.parametrize(
    "quote",
    [
        "gilt ein Aufschlag von 15 % je Monat",  # the page: 1.5 %
        "5 % Nachlass auf jedes zweite Fahrrad",  # inside 15 %
        "Jahresservice für Stadträder kostet 8900 Euro",  # the page: 89,00
        "Jahresservice für Stadträder kostet 89,0",  # ends inside a number
        "Käufer erhält 15 % Nachlass auf jedes zweite Fahr",  # ends inside a word
        "ahresservice für Stadträder kostet",  # begins inside a word
        "Der Käufer erhält 20 % Nachlass auf jedes zweite Fahrrad",
        "Der Käufer erhält keinen Nachlass auf Kinderräder",
        "Ein Jahresservice dauert zwei Werktage",  # two pieces of the page, put together
        "Telefon: +43 5125550142",
        "",
        "... !!! ???",
    ],
)
def test_planted_false_quotes_are_not_found(quote: str) -> None:
    assert locate(quote, PAGE) is None


def test_short_quotes_need_to_be_a_whole_sentence() -> None:
    assert found("Montag geschlossen.") == "Montag geschlossen"
    assert found("gilt ein Aufschlag") is None  # 16 letters inside a sentence
    assert found("Reparatur und Service") == "Reparatur und Service"  # 19 letters, a line by itself
    assert found("Geschlossen") is None  # 11 letters


def test_a_short_row_of_a_table_is_a_whole_sentence_but_a_part_of_it_is_not() -> None:
    page = (
        "| Boat | Hour | Day |\n|---|---|---|\n| Canoe | 12 euro | 60 euro |\n| Raft | 9 euro | 50 euro |\n"
    )
    span = locate("| Canoe | 12 euro | 60 euro |", page)
    assert span is not None
    assert page[slice(*span)] == "Canoe | 12 euro | 60 euro"
    assert locate("| Canoe | 12 euro |", page) is None


def test_a_later_occurrence_is_found_when_the_first_is_inside_a_word() -> None:
    page = "Kinderfahrradversicherungen ab 9 Euro. Fahrradversicherungen ab 9 Euro."
    span = locate("Fahrradversicherungen ab 9 Euro", page)
    assert span == (39, 70)


def test_a_match_does_not_begin_inside_a_folded_letter() -> None:
    assert locate("s ist eine gerade Straße hier", "Das Maß ist eine gerade Straße hier") is None


WORDS = st.lists(
    st.text(
        st.characters(codec="utf-8", categories=("L", "Nd", "P", "Zs", "Mn", "Sc", "Pd")),
        min_size=1,
        max_size=9,
    ),
    min_size=1,
    max_size=40,
)


@given(st.data())
def test_every_slice_at_word_boundaries_is_located(data: st.DataObject) -> None:
    page = unicodedata.normalize("NFC", data.draw(st.sampled_from([" ", "\n", "  "])).join(data.draw(WORDS)))
    words = [match.span() for match in re.finditer(r"\S+", page)]
    if not words:
        assert locate(page, page) is None
        return
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    quote = page[words[first][0] : words[last][1]]
    if len(squash(quote)[0]) < 20:
        return
    span = locate(quote, page)
    assert span is not None
    assert squash(page[span[0] : span[1]])[0] == squash(quote)[0]


@given(st.text(alphabet="abä 1.,5%-\n", max_size=60), st.text(alphabet="abä 1.,5%-\n", max_size=200))
def test_what_is_located_has_the_same_letters_and_numbers(quote: str, page: str) -> None:
    span = locate(quote, page)
    if span is not None:
        passage = page[span[0] : span[1]]
        assert squash(passage)[0] == squash(quote)[0]
        assert re.findall(r"\d+(?:[.,]\d+)*", passage) == re.findall(r"\d+(?:[.,]\d+)*", quote)
