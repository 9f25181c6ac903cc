"""The offline model's parts: example files and their errors, arguments, sentences, nearness, language."""

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.language import LanguageGuesser
from agents.offline_arguments import Utterance, read_arguments
from agents.offline_examples import ExampleLibrary
from agents.offline_sentences import QUOTE_LIMIT, sentence_spans
from agents.similarity import NgramIndex, Seed, SeedClassifier, TextIndex, ngrams
from prompts.loader import PromptError

PROMPTS = Path(__file__).parents[2] / "prompts"
AGENTS = ["billing", "operations", "sales", "support"]


class HashingEmbedder:
    """A stand-in with known geometry: one dimension for each of a few words."""

    dim, max_tokens = 4, 16

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id
        self.embedded: list[list[str]] = []

    async def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        self.embedded.append(list(texts))
        return np.stack([await self.embed_query(text) for text in texts])

    async def embed_query(self, text: str) -> np.ndarray:
        words = ["bike", "bill", "hour"]
        vector = np.array([float(word in text) for word in words] + [0.01], dtype=np.float32)
        return vector / np.float32(np.linalg.norm(vector))

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [(at, at + 1) for at in range(len(text))]


# --- example files


def test_the_shipped_examples() -> None:
    library = ExampleLibrary.load(PROMPTS)
    assert sorted(library.routes) == AGENTS
    assert {"crm_create_lead", "crm_add_note", "crm_find_contact", "knowledge_search"} <= set(library.calls)
    assert library.languages == ("de", "en")
    for by_language in library.routes.values():
        assert all(len(texts) == len(set(texts)) >= 14 for texts in by_language.values())
        assert set(by_language) == {"en", "de"}
    assert library.reply("ask_missing", "fr", fields="x") == "Gladly. For that I still need x."
    assert library.field("vat_id", "de") == "vat id"


OFFLINE = "shared/offline.yaml"
SALES = "specialists/sales.examples.yaml"


@pytest.mark.parametrize(
    ("path", "text", "line", "reason"),
    [
        (SALES, "route:\n  en: [a\n", 3, "expected ',' or ']'"),
        (SALES, "", 1, "is empty"),
        (SALES, "rout:\n  en: [a]\n", 1, "unknown key 'rout'; known: route"),
        (SALES, "route:\n  en:\n    - a\n    - {b: c}\n", 4, "expected a text"),
        (SALES, "route:\n  en: [a]\n  de: b\n", 3, "expected a list of sentences for 'de'"),
        (SALES, "route:\n  de: [a]\n", 2, "there are no sentences for 'en'"),
        (SALES, "route:\n  en: [a]\n  en: [b]\n", 3, "'en' stands here twice"),
        (OFFLINE, "replies: {}\nsmalltalk: {}\n", 1, "missing: asks, fields"),
    ],
)
def test_errors_say_file_line_and_reason(
    tmp_path: Path, path: str, text: str, line: int, reason: str
) -> None:
    root = tmp_path / "prompts"
    shutil.copytree(PROMPTS, root)
    (root / path).write_text(text, encoding="utf-8")
    with pytest.raises(PromptError) as caught:
        ExampleLibrary.load(root)
    assert (caught.value.path, caught.value.line) == (root / path, line)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("still need {fields}.", "still need.", "must hold {fields}, holds nothing in braces"),
        ("still need {fields}.", "still need {fields} {x}.", "must hold {fields}, holds {fields} {x}"),
        ("still need {fields}.", "still need {fields.", "expected '}' before end of string"),
    ],
)
def test_a_template_must_hold_its_braces(tmp_path: Path, old: str, new: str, reason: str) -> None:
    root = tmp_path / "prompts"
    shutil.copytree(PROMPTS, root)
    text = (root / OFFLINE).read_text(encoding="utf-8")
    (root / OFFLINE).write_text(text.replace(old, new), encoding="utf-8")
    line = text[: text.index(old)].count("\n") + 1
    with pytest.raises(PromptError) as caught:
        ExampleLibrary.load(root)
    assert str(caught.value) == f"{root / OFFLINE}:{line}: {reason}"


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"specialists:1: holds no \*.examples.yaml"):
        ExampleLibrary.load(tmp_path)
    shutil.copytree(PROMPTS / "specialists", tmp_path / "specialists")
    with pytest.raises(PromptError, match="cannot be read: No such file"):
        ExampleLibrary.load(tmp_path)


# --- arguments


def read(text: str, properties: dict[str, Any], *required: str, language: str = "en") -> tuple[Any, Any]:
    said = Utterance(text, ("My mail is ⟦EMAIL_9⟧",), date(2026, 11, 23), language)
    arguments = read_arguments({"properties": properties, "required": required}, said)
    return arguments.values, arguments.missing


@pytest.mark.parametrize(
    ("text", "language", "day"),
    [
        ("I would like to come tomorrow", "en", "2026-11-24"),
        ("Can I come on Friday at 3pm? My number is ⟦PHONE_12⟧", "en", "2026-11-27"),
        ("Ich würde gerne morgen kommen", "de", "2026-11-24"),
        ("Geht es am 3. Dezember?", "de", "2026-12-03"),
        ("Haben Sie am Freitag Zeit?", "de", "2026-11-27"),
        ("I need it by 2026-12-24", "en", "2026-12-24"),
        ("Please send me the price for ⟦EMAIL_1⟧", "en", None),
    ],
)
def test_dates_count_from_today(text: str, language: str, day: str | None) -> None:
    values, missing = read(text, {"day": {"type": "string", "format": "date"}}, "day", language=language)
    assert (values.get("day"), missing) == (day, () if day else ("day",))


def test_kinds_of_arguments() -> None:
    email = {"type": "string", "x-pii": "EMAIL"}
    assert read("write to ⟦EMAIL_10⟧ or ⟦EMAIL_1⟧", {"e": email}) == ({"e": "⟦EMAIL_10⟧"}, ())
    assert read("as I said", {"e": email}, "e") == ({"e": "⟦EMAIL_9⟧"}, ())
    assert read("as I said", {"p": {"type": "string", "x-pii": "PHONE"}}) == ({}, ("contact",))
    assert read("⟦PHONE_1⟧", {"iban": {"type": "string", "x-pii": "IBAN"}}, "iban") == ({}, ("iban",))
    level = {"enum": ["low", "very_high"]}
    assert read("the need is very high", {"l": level}) == ({"l": "very_high"}, ())
    assert read("slowly", {"l": level}) == ({}, ())
    assert read("3 bikes", {"n": {"type": "integer"}}) == ({"n": 3}, ())
    assert read("3 or 4 bikes", {"n": {"type": "integer"}}, "n") == ({}, ("n",))
    assert read("2,5 hours", {"n": {"type": "number"}}) == ({"n": 2.5}, ())
    assert read("call ⟦PHONE_7⟧", {"n": {"type": "integer"}}) == ({}, ())
    assert read("I want it", {"id": {"type": "string"}}, "id") == ({}, ("id",))
    text = {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 14}]}
    assert read("Please call me back", {"summary": text}) == ({"summary": "Please call…"}, ())


def test_names_and_references() -> None:
    name = {"type": "string", "x-pii": "PERSON"}
    assert read("Hi, my name is Anna-Lena Gruber and I", {"n": name}) == ({"n": "Anna-Lena Gruber"}, ())
    assert read("this is urgent", {"n": name}) == ({}, ())
    schema = {
        "properties": {"day": {"$ref": "#/$defs/Day"}},
        "$defs": {"Day": {"type": "string", "format": "date"}},
    }
    said = Utterance("tomorrow", (), date(2026, 12, 31), "en")
    assert read_arguments(schema, said).values == {"day": "2027-01-01"}
    assert read_arguments(schema, Utterance("tomorrow", (), None, "en")).values == {}


# --- sentences


def test_sentences() -> None:
    text = (
        "Prices incl. VAT apply, e.g. 5 euros. See No. 7 of\nthe terms. „Gut.“ Am 3. Mai ist zu!\n"
        "Helmet 5 EUR\nLock 9 EUR"
    )
    assert [text[a:b] for a, b in sentence_spans(text)] == [
        "Prices incl. VAT apply, e.g. 5 euros.", "See No. 7 of\nthe terms.", "„Gut.“", "Am 3. Mai ist zu!",
        "Helmet 5 EUR", "Lock 9 EUR",
    ]  # fmt: skip


@given(st.text(alphabet="aB ß.!?\n-•1,„“", max_size=900))
def test_spans_are_ordered_trimmed_and_short(text: str) -> None:
    end_before = 0
    for start, end in sentence_spans(text):
        assert end_before <= start < end <= len(text)
        piece = text[start:end]
        assert piece == piece.strip()
        assert len(piece) <= QUOTE_LIMIT or not any(char.isspace() for char in piece[:QUOTE_LIMIT])
        end_before = end


# --- nearness


def test_ngrams_take_a_placeholder_as_one_by_its_kind() -> None:
    assert ngrams("⟦EMAIL_1⟧ ⟦EMAIL_22⟧") == {"⟦EMAIL": 2}
    assert ngrams("Ab") == {" a": 1, "ab": 1, "b ": 1, " ab": 1, "ab ": 1, " ab ": 1}


def test_ngram_cosine() -> None:
    index = NgramIndex(["Die Rechnung stimmt nicht", "Wann haben Sie offen?"])
    assert index.scores("die rechnung STIMMT nicht").round(5).tolist()[0] == 1.0
    inflected = index.scores("Rechnungen")
    assert inflected[0] > 0.3 > inflected[1]
    assert index.scores("").tolist() == [0.0, 0.0]
    assert float(index.scores("Die Rechnung stimmt nicht xyz qqq www").max()) < 0.9


async def test_language_decides_the_embeddings_weight() -> None:
    index = TextIndex(["my bike"], HashingEmbedder("minilm-x"))
    english, german = [await index.scores("bikebikebike", code) for code in ("en", "de")]
    assert float(english[0]) - float(german[0]) > 0.2
    hosted = TextIndex(["my bike"], HashingEmbedder("openai-x"))
    assert (await hosted.scores("bikebikebike", "de")).tolist() == english.tolist()


async def test_texts_are_embedded_once_and_cut() -> None:
    embedder = HashingEmbedder("minilm-x")
    index = TextIndex(["bike " * 10, "bill"], embedder)
    await index.scores("bike", "en")
    await index.scores("bill", "en")
    assert embedder.embedded == [["bike bike bike b", "bill"]]


async def test_classifier() -> None:
    seeds = [
        Seed("sales", "en", "buy a bike"),
        Seed("billing", "en", "pay the bill"),
        Seed("ops", "de", "Uhrzeit"),
    ]
    classifier = SeedClassifier(seeds, HashingEmbedder("minilm-x"))
    choice = await classifier.choose("the bill", "en")
    assert (choice.label, choice.nearness > 0.6, choice.share > 0.8) == ("billing", True, True)
    assert (await classifier.choose("the bill", "de")).label == "ops"
    assert (await classifier.choose("pay", "fr")).label == "billing"
    assert (await classifier.choose("xyz", "en")).nearness < 0.1


# --- language


@pytest.mark.parametrize(
    ("text", "thread", "language"),
    [
        ("Mein Fahrrad ist kaputt", None, "de"),
        ("My bicycle is broken", None, "en"),
        ("My bicycle is broken, please help me", "de", "en"),
        ("Hallo!", None, "de"),
        ("hello", "de", "en"),
        ("Moin", "en", "de"),
        ("ok", "de", "en"),
        ("⟦EMAIL_1⟧", "de", "de"),
        ("12345 !!", None, "en"),
        ("", "de", "de"),
    ],
)
def test_language(text: str, thread: str | None, language: str) -> None:
    assert LanguageGuesser(["en", "de"]).guess(text, thread)[0] == language


def test_language_probabilities() -> None:
    guesser = LanguageGuesser(["de", "en", "it"])
    assert guesser.guess("Danke") == ("de", 1.0)
    assert guesser.guess("?!") == ("de", 1 / 3)
    assert guesser.guess("Ich hätte gerne einen Termin für morgen")[1] > 0.99
    assert guesser.guess("Bonjour")[0] in {"de", "en", "it"}
    with pytest.raises(ValueError, match=r"does not know: \['xx'\]"):
        LanguageGuesser(["en", "xx"])
    with pytest.raises(ValueError, match="no languages"):
        LanguageGuesser([])
