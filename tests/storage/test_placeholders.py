"""The promises of the placeholders, each as a property over arbitrary text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.placeholders import (
    PLACEHOLDER,
    StreamRestorer,
    Vault,
    VaultEntry,
    escape,
    normalise,
    unescape,
)

# Plain random text hardly ever holds a bracket or a placeholder: these are mixed in.
FRAGMENTS = [
    "⟦",
    "⟧",
    "⟦⟧",
    "⟦EMAIL_1⟧",
    "⟦EMAIL_10⟧",
    "⟦EMAIL_01⟧",
    "⟦OPEN_0⟧",
    "⟦CLOSE_0⟧",
    "EMAIL_1",
    "⟦A_",
    "_1⟧",
]
texts = st.lists(st.one_of(st.text(), st.sampled_from(FRAGMENTS)), max_size=8).map("".join)
kinds = st.sampled_from(["EMAIL", "PHONE", "IBAN", "PERSON"])


def vault_of(*values: tuple[str, str]) -> Vault:
    vault = Vault()
    for kind, value in values:
        vault.token(kind, value)
    return vault


@given(texts)
def test_escaping_is_undone_exactly(text: str) -> None:
    assert unescape(escape(text)) == text
    assert Vault().restore(escape(text)) == text


@given(texts)
def test_escaped_text_holds_no_placeholder_of_a_value(text: str) -> None:
    assert set(PLACEHOLDER.findall(escape(text))) <= {"⟦OPEN_0⟧", "⟦CLOSE_0⟧"}


@given(texts, texts, st.lists(st.tuples(kinds, st.text(min_size=1)), max_size=5))
def test_a_text_with_values_in_it_is_restored_exactly(
    before: str, after: str, values: list[tuple[str, str]]
) -> None:
    vault = Vault()
    firsts: dict[str, str] = {}
    masked, clear = escape(before), before
    for kind, value in values:
        token = vault.token(kind, value)
        clear += firsts.setdefault(token, value)
        masked += token
    assert vault.restore(masked + escape(after)) == clear + after


@given(texts, texts)
def test_known_values_are_replaced_and_restored(before: str, after: str) -> None:
    vault = vault_of(("EMAIL", "anna@example.at"), ("PERSON", "Ömer Yılmaz"), ("PHONE", "+43 664 1234567"))
    clear = f"{before} anna@example.at {after} Ömer Yılmaz, +43 664 1234567"
    masked = vault.replace_known(escape(clear))
    assert masked.endswith("⟦PERSON_1⟧, ⟦PHONE_1⟧")
    assert "anna@example.at" not in masked
    assert vault.restore(masked) == clear


@given(kinds, st.text(min_size=1), st.lists(st.text(min_size=1), max_size=5))
def test_one_value_has_one_placeholder_also_after_loading(kind: str, value: str, others: list[str]) -> None:
    vault = Vault()
    token = vault.token(kind, value)
    for other in others:
        same = normalise(kind, other) == normalise(kind, value)
        assert (vault.token(kind, other) == token) == same
    loaded = Vault(vault.fresh)
    assert loaded.token(kind, value) == token
    assert loaded.fresh == []


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("EMAIL", "Anna@Example.AT", "anna@example.at"),
        ("PHONE", "+43 (0) 512 / 5351-0", "0043 512 53510"),
        ("PHONE", "0512 5351", "0512/5351"),
        ("IBAN", "AT61 1904 3002 3457 3201", "at611904300234573201"),
        ("CARD", "4111-1111-1111-1111", "4111 1111 1111 1111"),
        ("VAT_ID", "DE 136 695 976", "DE136695976"),
        ("PERSON", "Anna  Schmidt", "anna schmidt"),
    ],
)
def test_spellings_of_one_value_share_a_placeholder(kind: str, first: str, second: str) -> None:
    vault = Vault()
    assert vault.token(kind, first) == vault.token(kind, second) == f"⟦{kind}_1⟧"
    assert vault.fresh == [VaultEntry(f"⟦{kind}_1⟧", kind, first, normalise(kind, first))]


def test_numbers_go_on_after_the_highest_stored_one() -> None:
    stored = [
        VaultEntry("⟦EMAIL_2⟧", "EMAIL", "b@x.at", "b@x.at"),
        VaultEntry("⟦EMAIL_7⟧", "EMAIL", "g@x.at", "g@x.at"),
    ]
    vault = Vault(stored)
    assert vault.token("EMAIL", "new@x.at") == "⟦EMAIL_8⟧"
    assert vault.token("PHONE", "+43512") == "⟦PHONE_1⟧"
    assert [entry.placeholder for entry in vault.fresh] == ["⟦EMAIL_8⟧", "⟦PHONE_1⟧"]
    vault.mark_stored()
    assert vault.fresh == []
    assert vault.restore("⟦EMAIL_8⟧") == "new@x.at"


def test_a_bad_kind_is_refused() -> None:
    for kind in ("", "email", "E-MAIL", "A" * 25, "EMAIL1"):
        with pytest.raises(ValueError, match="upper-case letters"):
            Vault().token(kind, "x")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ANNA@example.at", "⟦EMAIL_1⟧"),
        ("susanna@example.at max.anna@example.at", "susanna@example.at max.anna@example.at"),
        ("Anna Schmidt und Anna, Annabell", "⟦PERSON_2⟧ und ⟦PERSON_1⟧, Annabell"),
        ("EMAIL ⟦EMAIL_1⟧ ⟦OPEN_0⟧", "⟦LOGIN_1⟧ ⟦EMAIL_1⟧ ⟦OPEN_0⟧"),
        ("Anna.Maier@example.at anna@example", "Anna.Maier@example.at ⟦PERSON_1⟧@example"),
        ("Jo", "Jo"),
    ],
)
def test_what_counts_as_a_known_value(text: str, masked: str) -> None:
    vault = vault_of(
        ("EMAIL", "anna@example.at"),
        ("PERSON", "Anna"),
        ("PERSON", "Anna Schmidt"),
        ("LOGIN", "email"),
        ("PERSON", "Jo"),
    )
    assert vault.replace_known(text) == masked


def test_a_value_added_later_is_known_at_once() -> None:
    vault = vault_of(("PERSON", "Anna"))
    assert vault.replace_known("Anna Bert") == "⟦PERSON_1⟧ Bert"
    vault.token("PERSON", "Bert")
    assert vault.replace_known("Anna Bert") == "⟦PERSON_1⟧ ⟦PERSON_2⟧"


@given(st.integers(min_value=0, max_value=10**9 - 1), kinds)
def test_an_invented_placeholder_shows_nobodys_value(number: int, kind: str) -> None:
    vault = vault_of(("EMAIL", "secret@example.at"))
    token = f"⟦{kind}_{number}⟧"
    asked: list[str] = []
    expected = "secret@example.at" if token == "⟦EMAIL_1⟧" else "[…]"
    assert vault.restore(token) == expected

    def note(unknown: str) -> str:
        asked.append(unknown)
        return "?"

    vault.restore(token, note)
    assert asked == ([] if token == "⟦EMAIL_1⟧" else [token])


def test_a_placeholder_is_restored_by_its_whole_name() -> None:
    vault = vault_of(("EMAIL", "one@example.at"))
    assert vault.restore("⟦EMAIL_10⟧ ⟦EMAIL_01⟧ EMAIL_1 ⟦EMAIL_1⟧0") == "[…] […] EMAIL_1 one@example.at0"


def test_a_value_that_looks_like_a_placeholder_is_not_restored_again() -> None:
    vault = vault_of(("PERSON", "⟦PERSON_2⟧"), ("PERSON", "Bert"))
    assert vault.restore("⟦PERSON_1⟧") == "⟦PERSON_2⟧"


def test_json_is_restored_in_depth() -> None:
    vault = vault_of(("EMAIL", "a@x.at"))
    value = {
        "to": "⟦EMAIL_1⟧",
        "⟦EMAIL_1⟧": 1,
        "list": ["an ⟦EMAIL_1⟧", None, 2.5, {"cc": ("⟦EMAIL_9⟧", True)}],
    }
    assert vault.restore_json(value) == {
        "to": "a@x.at",
        "⟦EMAIL_1⟧": 1,
        "list": ["an a@x.at", None, 2.5, {"cc": ("[…]", True)}],
    }


def stream(vault: Vault, chunks: list[str]) -> list[str]:
    restorer = StreamRestorer(vault)
    return [*(restorer.feed(chunk) for chunk in chunks), restorer.flush()]


@given(texts)
def test_every_split_point_of_a_stream_gives_the_whole(text: str) -> None:
    vault = vault_of(("EMAIL", "anna@example.at"))
    whole = f"{text}⟦EMAIL_1⟧{text}"
    expected = vault.restore(whole)
    for cut in range(len(whole) + 1):
        assert "".join(stream(vault, [whole[:cut], whole[cut:]])) == expected
    assert "".join(stream(vault, list(whole))) == expected


@given(st.text(alphabet="⟦⟧AB_12 ", max_size=60))
def test_a_stream_holds_back_little_and_only_an_open_bracket(text: str) -> None:
    restorer = StreamRestorer(Vault(), unknown=lambda token: token)
    shown = 0
    for position, character in enumerate(text, 1):
        shown += len(restorer.feed(character).replace("⟦OPEN_0⟧", "⟦"))
        assert position - shown <= 35
        assert position == shown or "⟦" in text[shown:position]
    assert shown + len(restorer.flush()) == len(text)


def test_a_stream_without_placeholders_is_not_delayed() -> None:
    assert stream(Vault(), ["Hal", "lo ", "⟦ x"]) == ["Hal", "lo ", "⟦ x", ""]
