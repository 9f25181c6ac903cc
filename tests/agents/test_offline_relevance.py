"""How the offline model cuts passages and weighs words."""

import pytest

from agents.offline_relevance import Asked, kinship, stop_words, words
from agents.offline_sentences import sentences

CUES = {"price": ("how much", "cost"), "time": ("when do",), "count": (), "duration": (), "address": ()}
PDF = (
    "Boat hire\n"
    "A day runs from nine in the morning until half an hour before the harbour is locked in the evening, at\n"
    "the latest.\n"
    "Boat First day Each further day\n"
    "Canoe 25 euro 20 euro\n"
    "A very long boat with a sail and a motor for the whole family, at most 12 people 90 euro\n"
    "Raft closed\n"
    "Ferry 9 euro\n"
    "Children under 18. They swim for free.\n"
    "May I bring a dog?\n"
    "Yes, on a lead."
)


def test_a_pdfs_lines_are_told_apart() -> None:
    told = [(each.heading, each.row, each.spoken) for each in sentences(PDF)]
    head = "Boat hire (Boat First day Each further day)"
    assert told == [
        ("Boat hire", False, ("A day runs from nine in the morning until half an hour before the harbour is "
         "locked in the evening, at the latest.")),
        (head, True, "Canoe 25 euro 20 euro"),
        (head, True, "A very long boat with a sail and a motor for the whole family, at most 12 people 90 euro"),
        (head, True, "Raft closed"),
        (head, True, "Ferry 9 euro"),
        ("Boat hire", False, "Children under 18."),
        ("Boat hire", False, "They swim for free."),
        ("May I bring a dog?", False, "Yes, on a lead."),
    ]  # fmt: skip


def test_markdown_loses_its_marks() -> None:
    text = "## Open\n\n| Day | Time |\n|---|---|\n| Monday | 9 to 5 |\n\n- Phone: 12 34\n- Ask for *Ann*"
    assert [(each.heading, each.row, each.spoken) for each in sentences(text)] == [
        ("Open", True, "Monday: 9 to 5"),
        ("Open", True, "Phone: 12 34"),
        ("Open", True, "Ask for *Ann*"),
    ]
    assert next(text[each.start : each.end] for each in sentences(text)) == "| Monday | 9 to 5 |"


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("rad", "rader", 0.9),
        ("costs", "cost", 0.9),
        ("repariert", "reparieren", 0.9),
        ("termin", "werkstatttermin", 0.7),
        ("reifentausch", "reifen", 0.7),
        ("firm", "first", 0.0),
        ("car", "scar", 0.0),
        ("15", "150", 0.0),
    ],
)
def test_kinship(one: str, other: str, near: float) -> None:
    assert kinship(one, other) == kinship(other, one) == near
    assert kinship(one, one) == 1.0


def test_words_are_folded() -> None:
    assert words("Räder & E-Bikes, 9:30 Uhr: an rad@example.org!") == ["rader", "ebikes", "9:30", "uhr", "an"]
    assert "wir" in stop_words("de")
    assert stop_words("xx-none") == frozenset()


def test_a_question_is_weighed() -> None:
    texts = ["The canoe is green.", "The boat is blue.", "The boat sinks."]
    asked = Asked.read("How much does the canoe cost in Linz?", "en", CUES, texts)
    assert asked.kinds == {"price"}
    assert not {"how", "much", "cost"} & asked.weights.keys()
    assert asked.weights["linz"] > asked.weights["canoe"] > 5 * asked.weights["the"]
    assert asked.figures("It is 5 €.") == 1
    assert asked.figures("It is green.") == -1
    assert Asked.read("Is it green?", "en", CUES, texts).figures("It is 5 €.") == 0
    in_text, above, beside, nowhere = (
        asked.covered("canoe"), asked.covered("", "canoe"), asked.covered("", "", "canoe"), asked.covered("x")
    )  # fmt: skip
    assert in_text > above > beside > nowhere == 0.0
    assert asked.density("Canoe canoe") == 1.0
    assert asked.density("The canoe is green") == 0.5
    assert Asked.read("", "en", CUES, texts).covered("x") == 0.0
