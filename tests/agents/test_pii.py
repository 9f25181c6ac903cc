"""What the masker finds and what it leaves alone, on made-up sentences with generated valid numbers."""

from __future__ import annotations

import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.supervisor.pii import COVERAGE, OVERLAP, WINDOW, Masker, Span
from agents.supervisor.pii_engine import is_card
from storage.placeholders import Vault
from tests.support.personal import MAKERS, SENTENCES, digits


@pytest.fixture(scope="module")
def masker() -> Masker:
    return Masker()


def mask(masker: Masker, text: str) -> str:
    """The masked text; that it can be restored is checked on the way."""
    vault = Vault()
    masked = masker.mask(text, vault)
    assert vault.restore(masked) == text
    return masked


def corpus() -> list[tuple[str, str, str]]:
    """150 sentences: (kind, sentence, value)."""
    rng = random.Random(20261123)
    made = []
    for kind, sentences in SENTENCES.items():
        for sentence in sentences * 6:
            value = MAKERS[kind](rng)
            made.append((kind, sentence.format(value), value))
    return made


def test_recall_on_generated_values(masker: Masker, capsys: pytest.CaptureFixture[str]) -> None:
    sentences = corpus()
    begin = time.process_time()
    spans = [masker.find(sentence) for _, sentence, _ in sentences]
    each = (time.process_time() - begin) / len(sentences) * 1000
    missed = [
        (kind, sentence)
        for (kind, sentence, value), found in zip(sentences, spans, strict=True)
        if not any(span.kind == kind and value in sentence[span.start : span.end] for span in found)
    ]
    with capsys.disabled():
        sys.stdout.write(f"\npii: {len(missed)} of {len(sentences)} missed, {each:.2f} ms CPU a sentence\n")
    assert Counter(kind for kind, _, _ in sentences) == dict.fromkeys(SENTENCES, 30)
    assert missed == []


def test_ids_of_orders_are_left_alone(masker: Masker) -> None:
    rng = random.Random(7)
    sentences = [
        "Where is my order {}?",
        "order no. {} has not arrived",
        "Invoice {} was paid twice.",
        "My booking reference is {}.",
        "Meine Bestellung {} ist nicht da.",
        "Bestellnummer: {}",
        "Rechnung Nr. {} ist falsch.",
        "Kundennummer {}, bitte um Auskunft",
        "Rahmennummer {}",
        "ma commande {} est perdue",
        "Es geht um {}.",
    ]
    shapes: list[Callable[[], str]] = [
        lambda: digits(rng, 8),
        lambda: digits(rng, 10),
        lambda: digits(rng, 12),
        lambda: f"{rng.randrange(2020, 2027)}-{digits(rng, 6)}",
        lambda: f"RE-{digits(rng, 4)}-{digits(rng, 5)}",
        lambda: f"{digits(rng, 4)}-{digits(rng, 4)}",
        lambda: f"#{digits(rng, 9)}",
        lambda: f"ORD{digits(rng, 9)}",
    ]
    texts = [sentence.format(shape()) for sentence in sentences for shape in shapes]
    assert len(texts) == 88
    assert [text for text in texts if masker.find(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "Termin am 12.05.2026 um 14:30 Uhr",
        "vom 01.10.2026 bis 15.10.2026, täglich 9-18 Uhr",
        "offen 08:00-12:00 und 14:00-18:00",
        "on 2026-05-12 at 9:15, or 05/12/2026",
        "Das kostet 1.234.567,00 EUR oder 12 345 678 €",
        "€ 12.345.678 und CHF 12 345 678",
        "Rahmenhöhe 56 cm, Reifen 700x35c, 28 Zoll, 250 Watt, 500 Wh",
        "6020 Innsbruck, Musterweg 12",
        "Ich hätte gern 2 Räder für 3 Tage",
        "Version 10.12.2026.1 und 192.168.10.20",
        "Bestellung 4111 1111 1111 1111",
        "follow us @alpenrad",
        "Anna Schmidt aus Wien",
        "",
    ],
)
def test_dates_prices_and_plain_words_are_left_alone(masker: Masker, text: str) -> None:
    assert masker.find(text) == []


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Mail anna@example.at oder bert@example.de", "Mail ⟦EMAIL_1⟧ oder ⟦EMAIL_2⟧"),
        ("servus@alpenrad.example, anna@firma.intern", "⟦EMAIL_1⟧, ⟦EMAIL_2⟧"),
        ("package@1.2.3 und @alpenrad", "package@1.2.3 und @alpenrad"),
        ("DE89 3704 0044 0532 0130 00 bitte heute", "⟦IBAN_1⟧ bitte heute"),
        ("de89370400440532013000 2 Tage", "⟦IBAN_1⟧ 2 Tage"),
        ("DE88 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00"),
        ("USt-IdNr. DE136695976, ATU13585627", "USt-IdNr. ⟦VAT_ID_1⟧, ⟦VAT_ID_2⟧"),
        ("DE136695977", "DE136695977"),
        ("Karte 4111 1111 1111 1111 12/27", "Karte ⟦CARD_1⟧ 12/27"),
        ("Karte 4111 1111 1111 1112", "Karte 4111 1111 1111 1112"),
        ("Zur Bestellung 12345678: +43 664 1234567", "Zur Bestellung 12345678: ⟦PHONE_1⟧"),
        ("Meine Nummer ist 06641234567", "Meine Nummer ist ⟦PHONE_1⟧"),
        ("06641234567", "06641234567"),
        ("Call me on 9472 7916, twice", "Call me on ⟦PHONE_1⟧, twice"),
        ("Desk: +41 (0)96 471 07 95", "Desk: ⟦PHONE_1⟧"),
        ("+1-984-182-0190 (no such number)", "⟦PHONE_1⟧ (no such number)"),
        ("my card 213176828496175 is lost", "my card ⟦CARD_1⟧ is lost"),
        ("card number 3598899323053410", "card number ⟦CARD_1⟧"),
        ("article 213176828496175 is lost", "article 213176828496175 is lost"),
        ("Please tell me about 12345678", "Please tell me about 12345678"),
        ("Anruf bitte 10.00 - 12.00 Uhr", "Anruf bitte 10.00 - 12.00 Uhr"),
        ("Call me on 12.05.2026, please", "Call me on 12.05.2026, please"),
        ("🚲☎ 0512/123456 🚲", "🚲☎ ⟦PHONE_1⟧ 🚲"),
        ("اتصل بي على +43 664 1234567 من فضلك", "اتصل بي على ⟦PHONE_1⟧ من فضلك"),
        ("דוא״ל: anna@example.at תודה", "דוא״ל: ⟦EMAIL_1⟧ תודה"),
        ("x⟦EMAIL_1⟧anna@example.at", "x⟦OPEN_0⟧EMAIL_1⟦CLOSE_0⟧⟦EMAIL_1⟧"),
    ],
)
def test_masked_sentences(masker: Masker, text: str, masked: str) -> None:
    assert mask(masker, text) == masked


def test_two_spellings_of_a_value_are_one_value(masker: Masker) -> None:
    vault = Vault()
    assert masker.mask("anna@example.at, ANNA@example.at", vault) == "⟦EMAIL_1⟧, ⟦EMAIL_1⟧"
    assert [entry.value for entry in vault.fresh] == ["anna@example.at"]


def test_known_values_need_no_recognizer(masker: Masker) -> None:
    vault = Vault()
    vault.token("PERSON", "Anna Schmidt")
    vault.mark_stored()
    text = "Hier ist Anna Schmidt, anna.schmidt@example.at"
    assert masker.mask(text, vault) == "Hier ist ⟦PERSON_1⟧, ⟦EMAIL_1⟧"
    assert [entry.value for entry in vault.fresh] == ["anna.schmidt@example.at"]


def test_long_texts_are_analysed_in_windows(masker: Masker) -> None:
    address = "anna@example.at"
    for at in (WINDOW - OVERLAP - 3, WINDOW - 3, WINDOW + 1):
        text = "x " * (at // 2) + address + " y" * WINDOW
        start = text.index(address)
        assert masker.find(text) == [Span(start, start + len(address), "EMAIL")]


FRAGMENTS = ["⟦", "⟦EMAIL_1⟧", "a@example.at", " +43 664 1234567 ", "DE136695976", "@", "0", "x"]


@given(parts=st.lists(st.one_of(st.text(), st.sampled_from(FRAGMENTS)), max_size=6))
@settings(max_examples=80, deadline=None)  # the first example of a kind pays for loading its tables
def test_any_text_can_be_restored(masker: Masker, parts: list[str]) -> None:
    mask(masker, "".join(parts))


def test_nothing_is_fetched_from_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the masker opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert Masker().find("a@example.at") == [Span(0, 12, "EMAIL")]


@pytest.mark.parametrize(
    ("number", "valid"),
    [
        ("4111111111111111", True),
        ("378282246310005", True),
        ("5555555555554444", True),
        ("4111111111111112", False),
        ("1111111111111117", False),
        ("41111111111111", False),
    ],
)
def test_a_card_needs_prefix_length_and_check_digit(number: str, valid: bool) -> None:
    assert is_card(number) is valid


def test_coverage_is_honest() -> None:
    assert {kind for kind, state in COVERAGE.items() if state == "covered"} == set(SENTENCES)
    assert {kind for kind, state in COVERAGE.items() if state == "not covered"} == {"PERSON", "ADDRESS"}
