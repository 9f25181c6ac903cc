"""Chunks keep their exact place, lose nothing, and never exceed what the embedder reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chunking import chunk
from ingest.parsers import Page
from storage.vectors.minilm import MiniLMEmbedder


class WordEmbedder:
    """Counts words and signs as tokens; what the chunker asks of an embedder, without a model."""

    model_id = "words"
    dim = 1

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens

    async def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 1), np.float32)

    async def embed_query(self, text: str) -> np.ndarray:
        return np.ones(1, np.float32)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> MiniLMEmbedder:
    return MiniLMEmbedder(tmp_path_factory.mktemp("models"))


def texts(embedder: WordEmbedder, text: str, *, title: str = "", overlap: int = 0) -> list[str]:
    return [found.text for found in chunk([Page(1, text)], embedder, title=title, overlap=overlap)]


def test_whole_sentences_are_packed_up_to_the_limit() -> None:
    text = "One two three. Four five six. Seven eight nine. Ten."
    assert texts(WordEmbedder(8), text) == ["One two three. Four five six.", "Seven eight nine. Ten."]
    assert texts(WordEmbedder(7), text) == ["One two three.", "Four five six.", "Seven eight nine. Ten."]


def test_overlap_repeats_whole_sentences_only() -> None:
    text = "One two three. Four five six. Seven eight nine. Ten."
    assert texts(WordEmbedder(8), text, overlap=4) == [
        "One two three. Four five six.",
        "Four five six. Seven eight nine.",
        "Seven eight nine. Ten.",
    ]
    assert texts(WordEmbedder(8), text, overlap=3) == texts(WordEmbedder(8), text, overlap=0)


def test_overlap_gives_way_when_the_next_sentence_needs_the_room() -> None:
    text = "A b c. D e. One two three four five six seven."
    assert texts(WordEmbedder(8), text, overlap=4) == ["A b c. D e.", "One two three four five six seven."]


def test_long_sentence_is_windowed_at_words() -> None:
    text = " ".join(f"w{n}" for n in range(25))
    found = texts(WordEmbedder(10), text, overlap=2)
    assert [piece.split()[0] for piece in found] == ["w0", "w8", "w16"]
    assert [piece.split()[-1] for piece in found] == ["w9", "w17", "w24"]


def test_long_table_is_cut_between_its_rows() -> None:
    rows = [f"| tyre {n} | {n} euro |" for n in range(1, 7)]
    found = texts(WordEmbedder(22), "\n".join(rows))
    assert found == ["\n".join(rows[0:3]), "\n".join(rows[3:6])]


def test_title_and_headings_count_against_the_limit() -> None:
    text = "# Rental\n\nIntro.\n\n## Deposit\n\nThe deposit is 300 euro. It is returned.\n\n"
    text += "## Prices\n\nOne day 39."
    found = chunk([Page(1, text)], WordEmbedder(12), title="Rental", overlap=0)
    assert [(part.prefix, part.text, part.heading_path) for part in found] == [
        ("Rental\n", "# Rental\n\nIntro.", ("Rental",)),
        (
            "Rental > Deposit\n",
            "## Deposit\n\nThe deposit is 300 euro.",
            ("Rental", "Deposit"),
        ),
        ("Rental > Deposit\n", "It is returned.", ("Rental", "Deposit")),
        ("Rental > Prices\n", "## Prices\n\nOne day 39.", ("Rental", "Prices")),
    ]
    assert [part.tokens for part in found] == [5, 12, 7, 10]


def test_long_title_leaves_two_thirds_to_the_text() -> None:
    found = chunk(
        [Page(1, "One two three four five six.")], WordEmbedder(9), title="a b c d e f g h", overlap=0
    )
    assert [part.embed_text for part in found] == ["a b c\nOne two three four five", "a b c\nsix."]


def test_headings_inside_code_are_text_and_open_headings_reach_over_pages() -> None:
    pages = [
        Page(1, "# Guide\n\n```\n# not a heading\n```"),
        Page(2, "More. ### no heading"),
        Page(3, "## Next\nText."),
    ]
    assert [part.heading_path for part in chunk(pages, WordEmbedder(50))] == [
        ("Guide",),
        ("Guide",),
        ("Guide", "Next"),
    ]


def test_chunks_stay_on_their_page_and_empty_pages_give_none() -> None:
    pages = [Page(1, "First page."), Page(2, ""), Page(3, " \n\n "), Page(4, "Fourth page.")]
    found = chunk(pages, WordEmbedder(50))
    assert [(part.ordinal, part.text, part.page_from, part.page_to) for part in found] == [
        (0, "First page.", 1, 1),
        (1, "Fourth page.", 4, 4),
    ]


def test_negative_overlap_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        chunk([Page(1, "a")], WordEmbedder(9), overlap=-1)


def test_embedder_that_reads_more_gets_no_larger_chunks() -> None:
    found = chunk([Page(1, "word " * 1000)], WordEmbedder(8000))
    assert max(part.tokens for part in found) == 254


async def test_minilm_reads_every_chunk_of_german_text(minilm: MiniLMEmbedder) -> None:
    text = (
        "Die Jahresinspektion umfasst die Prüfung der Bremsbeläge, des Schaltwerks und der Speichen. "
        "Für Lastenräder gilt ein Werkstattaufschlag, weil die Vorderradaufhängung zerlegt wird. "
    ) * 60
    found = chunk([Page(1, text)], minilm, title="Preisliste der Fahrradwerkstatt")
    assert len(found) > 10
    assert max(part.tokens for part in found) <= 254
    assert min(part.tokens for part in found[:-1]) > 200
    assert (await minilm.embed_documents([part.embed_text for part in found])).shape == (len(found), 384)


def test_unbroken_blob_is_cut_into_bounded_pieces(minilm: MiniLMEmbedder) -> None:
    blob = "QUJD" * 5_000
    found = chunk([Page(1, blob)], minilm, overlap=0)
    assert "".join(part.text for part in found) == blob
    assert max(len(part.text) for part in found) <= 254 * 12
    assert max(part.tokens for part in found) <= 254


PAGE_TEXT = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cf")), max_size=30),
        st.sampled_from(
            [". ", "! ", "\n\n", "\n## Kopf\n", "# A\n", "Satz eins. ", "x" * 150, "```\n", "1.5 % ", "Ä "]
        ),
    ),
    max_size=40,
).map("".join)


def check(pages: list[Page], embedder: WordEmbedder | MiniLMEmbedder, title: str, overlap: int) -> None:
    found = chunk(pages, embedder, title=title, overlap=overlap)
    assert [part.ordinal for part in found] == list(range(len(found)))
    text_of = {page.number: page.text for page in pages}
    seen: dict[int, set[int]] = {page.number: set() for page in pages}
    for part in found:
        assert part.page_from == part.page_to
        assert text_of[part.page_from][part.char_start : part.char_end] == part.text
        assert part.embed_text == part.prefix + part.text
        assert part.tokens == len(embedder.offsets(part.embed_text)) <= min(embedder.max_tokens, 254)
        seen[part.page_from].update(range(part.char_start, part.char_end))
    for page in pages:
        assert all(i in seen[page.number] for i, character in enumerate(page.text) if not character.isspace())
    for one, other in pairwise(found):
        if one.page_from == other.page_from:
            assert one.char_start < other.char_start
            assert one.char_end < other.char_end


@settings(deadline=None)
@given(st.lists(PAGE_TEXT, max_size=3), st.integers(6, 60), st.integers(0, 20), st.text(max_size=30))
def test_any_pages_any_limit(bodies: list[str], max_tokens: int, overlap: int, title: str) -> None:
    check([Page(n, body) for n, body in enumerate(bodies, 1)], WordEmbedder(max_tokens), title, overlap)


@settings(deadline=None, max_examples=40)
@given(PAGE_TEXT.map(lambda text: text * 6), st.text(max_size=30))
def test_any_page_with_the_real_tokenizer(minilm: MiniLMEmbedder, body: str, title: str) -> None:
    check([Page(1, body)], minilm, title, 32)
