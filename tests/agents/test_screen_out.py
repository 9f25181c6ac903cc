"""A quote leaves only if it stands in the page."""

from uuid import UUID

import pytest

from agents.supervisor.screen_out import Page, check_citations, without_markers

DOCUMENT = UUID(int=1)
PAGES = {
    "a": Page(DOCUMENT, "Terms", 2, "The deposit for an e-bike is 300 euro. Cash is not taken."),
    "b": Page(DOCUMENT, "Terms", 3, "Every second service costs 1.5 % less than the first one."),
}
PASSAGES = {"K1": {"ref": "a"}, "K2": {"ref": "b"}}


async def page_of(ref: str) -> Page | None:
    return PAGES.get(ref)


async def checked(text: str) -> tuple[str, list[tuple[int, int, str]], int]:
    result = await check_citations(text, PASSAGES, page_of, lambda value: value.replace("⟦NUMBER_1⟧", "300"))
    return result.text, [(c["n"], c["page"], c["quote"]) for c in result.citations], result.dropped


async def test_a_true_quote_becomes_a_number() -> None:
    text, citations, dropped = await checked('It is 300 euro. [K1: "the deposit for an e-bike is 300 EURO"]')
    assert (text, dropped) == ("It is 300 euro. [1]", 0)
    assert citations == [(1, 2, "The deposit for an e-bike is 300 euro")]


async def test_a_quote_of_another_passage_is_put_right() -> None:
    text, citations, dropped = await checked('See [K2: "The deposit for an e-bike is 300 euro."]')
    assert (text, dropped) == ("See [1]", 0)
    assert citations == [(1, 2, "The deposit for an e-bike is 300 euro")]


@pytest.mark.parametrize(
    "quote",
    [
        "The deposit for an e-bike is 30 euro",
        "Every second service costs 15 % less than the first",
        "We give bikes away for free here",
    ],
)
async def test_a_false_quote_is_dropped(quote: str) -> None:
    assert await checked(f'So it is. [K1: "{quote}"]') == ("So it is.", [], 1)


async def test_the_same_place_has_one_number_and_unknown_ids_leave_nothing() -> None:
    quote = '[K1: "The deposit for an e-bike is 300 euro"]'
    text, citations, dropped = await checked(f"A {quote} B {quote} C [K9] D [K9: nothing")
    assert (text, len(citations), dropped) == ("A [1] B [1] C D", 1, 0)


async def test_a_reply_whose_sources_all_fail_is_unsupported() -> None:
    result = await check_citations('Free! [K1: "bikes are free for everybody"]', PASSAGES, page_of, str)
    assert result.unsupported


@pytest.mark.parametrize(
    ("begun", "shown"),
    [
        ('It is 300. [K1: "The dep', "It is 300."),
        ('It is 300. [K1: "The deposit for"] And', "It is 300. And"),
        ("It is [1] and [", "It is [1] and"),
    ],
)
def test_a_draft_shows_no_markers(begun: str, shown: str) -> None:
    assert without_markers(begun) == shown
