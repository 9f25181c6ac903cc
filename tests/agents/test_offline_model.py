"""The offline model's turns: small talk, tool calls with arguments from the text, quotes, a person."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import HumanMessage

from agents.models import ModelGateway, Task
from agents.offline import offline_models
from agents.offline_examples import ExampleLibrary
from agents.settings import ModelSettings
from storage.vectors.minilm import MiniLMEmbedder
from tests.agents.offline_kit import (
    HANDOFF_EN,
    LEAD_CREATED,
    PERSON,
    PROMPTS,
    SEARCH,
    TOOLS,
    Model,
    after,
    called,
    found,
    quoted,
    spec,
)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> MiniLMEmbedder:
    return MiniLMEmbedder(tmp_path_factory.mktemp("minilm"))


@pytest.fixture(scope="module")
def library() -> ExampleLibrary:
    return ExampleLibrary.load(PROMPTS)


@pytest.fixture(scope="module")
def model(library: ExampleLibrary, embedder: MiniLMEmbedder) -> Model:
    return Model(library, embedder)


@pytest.mark.parametrize(
    ("text", "language", "reply"),
    [
        ("Hello!", "en", "Hello! How can I help you?"),
        ("Grüß Gott", "de", "Hallo! Wie kann ich Ihnen helfen?"),
        ("Thanks a lot!", "en", "You are welcome. Is there anything else I can do for you?"),
        ("Vielen Dank", "de", "Gern geschehen. Kann ich sonst noch etwas für Sie tun?"),
    ],
)
async def test_small_talk_calls_no_tool(model: Model, text: str, language: str, reply: str) -> None:
    assert called(await model(text, language=language)) == reply


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What does the yearly inspection of an e-bike cost?", "en"),
        ("Hello, are you open on Saturdays?", "en"),
        ("Was kostet das Jahresservice für ein E-Bike?", "de"),
        ("Haben Sie am Samstag Vormittag geöffnet?", "de"),
        ("Who was the first man on the moon?", "en"),
    ],
)
async def test_a_question_is_looked_up(model: Model, text: str, language: str) -> None:
    assert called(await model(text, language=language)) == ("knowledge_search", {"query": text})


@pytest.mark.parametrize(
    ("text", "language", "arguments"),
    [
        ("Please contact me about a cargo bike, my e-mail is ⟦EMAIL_1⟧", "en", {"email": "⟦EMAIL_1⟧"}),
        ("Please call me back at ⟦PHONE_2⟧ about an offer", "en", {"phone": "⟦PHONE_2⟧"}),
        (
            "Mein Name ist Maria Huber, bitte schicken Sie mir ein Angebot an ⟦EMAIL_1⟧",
            "de",
            {"email": "⟦EMAIL_1⟧", "name": "Maria Huber"},
        ),
        ("Ich heiße ⟦PERSON_1⟧, rufen Sie mich bitte unter ⟦PHONE_1⟧ wegen eines Lastenrads zurück", "de",
         {"phone": "⟦PHONE_1⟧", "name": "⟦PERSON_1⟧"}),
    ],
)  # fmt: skip
async def test_a_lead_with_what_the_text_tells(
    model: Model, text: str, language: str, arguments: dict[str, str]
) -> None:
    assert called(await model(text, language=language)) == ("crm_create_lead", {"subject": text, **arguments})


async def test_what_is_missing_is_asked_for_and_then_used(model: Model) -> None:
    wish = "Bitte kontaktieren Sie mich wegen eines neuen Lastenrades"
    ask = await model(wish, language="de")
    assert called(ask) == "Gerne. Dafür brauche ich noch Ihre E-Mail-Adresse oder Telefonnummer."
    answer = await model(wish, ask, "Meine E-Mail ist ⟦EMAIL_1⟧", language="de")
    subject = f"{wish} Meine E-Mail ist ⟦EMAIL_1⟧"
    assert called(answer) == ("crm_create_lead", {"subject": subject, "email": "⟦EMAIL_1⟧"})


async def test_several_missing_fields_are_listed(model: Model) -> None:
    strict = spec("crm_create_lead", {
        "name": {"type": "string", "x-pii": "PERSON"}, "email": {"type": "string", "x-pii": "EMAIL"},
        "company": {"type": "string"}}, "name", "email", "company")  # fmt: skip
    answer = await model("Please contact me about buying a bike", tools=[strict, SEARCH])
    wanted = "your name, your e-mail address and the name of your company"
    assert called(answer) == f"Gladly. For that I still need {wanted}."


async def test_note_and_contact(model: Model) -> None:
    text = "Bitte notieren Sie, dass ich erst ab 16 Uhr erreichbar bin"
    assert called(await model(text, language="de")) == ("crm_add_note", {"text": text})
    text = "Do you have my contact details under ⟦EMAIL_3⟧?"
    assert called(await model(text)) == ("crm_find_contact", {"email": "⟦EMAIL_3⟧"})


@pytest.mark.parametrize(
    ("name", "language", "result", "reply"),
    [
        ("crm_create_lead", "en", {"ok": True}, LEAD_CREATED),
        ("crm_add_note", "de", {"ok": True}, "Das habe ich für unser Team notiert."),
        ("crm_find_contact", "en", {"found": True}, "Yes, you are in our records."),
        ("crm_find_contact", "en", {"found": False}, "I could not find you in our records."),
        ("other_tool", "en", {"ok": True}, "That is done."),
        ("crm_add_note", "en", {"error": "The customer is not known yet"},
         "Gladly. For that I still need your e-mail address or phone number."),
        ("other_tool", "en", {"error": "The shop is closed"},
         f"That did not work: The shop is closed. {HANDOFF_EN.partition('. ')[2]}"),
        ("crm_add_note", "en", {"strange": 1}, HANDOFF_EN),
    ],
)  # fmt: skip
async def test_after_a_tool(
    model: Model, name: str, language: str, result: dict[str, Any], reply: str
) -> None:
    answer = await model("Please note it", *after(name, {"text": "x"}, result), language=language)
    assert called(answer) == reply


async def test_a_note_about_a_stranger_becomes_a_lead_once_there_is_an_address(model: Model) -> None:
    wish = "Please note that I can only be reached in the evening"
    failed = after("crm_add_note", {"text": wish}, {"error": "The customer is not known yet"})
    ask = await model(wish, *failed)
    follow_up = "It is ⟦EMAIL_1⟧"
    failed_again = after(
        "crm_add_note", {"text": f"{wish} {follow_up}"}, {"error": "The customer is not known yet"}
    )
    answer = await model(wish, ask, follow_up, *failed_again)
    lead = {"subject": f"{wish} {follow_up}", "email": "⟦EMAIL_1⟧"}
    assert called(answer) == ("crm_create_lead", lead)


async def test_what_fails_goes_to_a_person_where_one_can_be_called(model: Model) -> None:
    failed = after("other_tool", {"text": "x"}, {"error": "The shop is closed"})
    answer = await model("Please do it", *failed, tools=[*TOOLS, PERSON])
    assert called(answer) == (
        "call_person",
        {"reason": "The offline model found no reliable answer to: Please do it"},
    )


async def test_a_wish_for_another_specialists_tool_is_not_looked_up(model: Model) -> None:
    wish = "Bitte rufen Sie mich unter ⟦PHONE_1⟧ wegen eines Angebots zurück"
    answer = await model(wish, language="de", tools=[SEARCH, PERSON])
    assert isinstance(called(answer), tuple)
    assert called(answer)[0] == "call_person"


TARIFF = (
    "# Rental\n\n| Boat | One hour | One day |\n|---|---|---|\n| Canoe | 12 euro | 60 euro |\n"
    "| Pedal boat | 18 euro | not offered |\n\nLife jackets are included."
)


async def test_a_tables_row_is_read_with_its_head_and_quoted_as_it_stands(model: Model) -> None:
    question = "What does a canoe cost for a day?"
    assert called(await model(question, *found(question, TARIFF))) == (
        'Rental: Canoe: One hour: 12 euro; One day: 60 euro [K1: "| Canoe | 12 euro | 60 euro |"]'
    )


async def test_what_is_asked_about_must_stand_in_the_documents(model: Model) -> None:
    question = "Was kostet ein Segelboot für einen Tag?"
    prices = "Ein Kanu kostet 60 Euro für einen Tag. Schwimmwesten sind dabei."
    assert called(await model(question, *found(question, prices), language="de")) == (
        "Darauf habe ich keine verlässliche Antwort. Ich gebe das an einen Menschen weiter, der sich bei Ihnen meldet."
    )
    question = "Was kostet ein Kanu für einen Tag?"
    answer = str(called(await model(question, *found(question, prices), language="de")))
    assert answer.startswith("Ein Kanu kostet 60 Euro für einen Tag.")


PRICES = (
    "Alpenrad has two mechanics. The annual service of a city bike costs 89 euros. The annual service of an "
    "e-bike costs 149 euros. A flat tyre is repaired for 25 euros while you wait."
)  # fmt: skip
HOURS = (
    "Öffnungszeiten\nMontag bis Freitag haben wir von 9 bis 18 Uhr geöffnet.\n"
    "Am Samstag haben wir von 9 bis 13 Uhr geöffnet.\nSonntag ist Ruhetag."
)
RENT = (
    "Für ein Leih-E-Bike verlangen wir 45 Euro pro Tag. Die Kaution beträgt 200 Euro und wird bei der "
    "Rückgabe\nerstattet. Helme sind gratis."
)


@pytest.mark.parametrize(
    ("question", "language", "texts", "reply"),
    [
        ("What does the annual service of an e-bike cost?", "en", [RENT, PRICES],
         quoted("K2", "The annual service of a city bike costs 89 euros. The annual service of an e-bike costs "
                "149 euros.")),
        ("Haben Sie am Samstag geöffnet?", "de", [RENT, HOURS],
         quoted("K2", "Am Samstag haben wir von 9 bis 13 Uhr geöffnet.")),
        ("Wie hoch ist die Kaution für das E-Bike?", "de", [RENT, HOURS],
         quoted("K1", "Für ein Leih-E-Bike verlangen wir 45 Euro pro Tag. Die Kaution beträgt 200 Euro und wird bei der "
                "Rückgabe\nerstattet.")),
    ],
)  # fmt: skip
async def test_the_best_sentence_is_quoted(
    model: Model, question: str, language: str, texts: list[str], reply: str
) -> None:
    assert called(await model(question, *found(question, *texts), language=language)) == reply


async def test_a_quote_in_another_language_is_announced(model: Model) -> None:
    question = "Was kostet das annual service für ein City Bike in Euro?"
    answer = str(called(await model(question, *found(question, PRICES), language="de")))
    assert answer == (
        "Dazu habe ich etwas in einem Dokument in einer anderen Sprache gefunden: "
        + quoted(
            "K1",
            "The annual service of a city bike costs 89 euros. The annual service of an e-bike costs 149 euros.",
        )
    )


async def test_quotes_are_verbatim_short_and_whole_words(model: Model) -> None:
    long = "The warranty on the frame " + "covers every crack and " * 40 + "ends after five years."
    question = "What does the warranty on the frame cover?"
    answer = str(called(await model(question, *found(question, long))))
    match = re.search(r'\[K1: "(.*?)"\]', answer, re.DOTALL)
    assert match is not None
    assert match[1] in long
    assert 250 < len(match[1]) <= 300
    assert long[len(match[1])] == " "


@pytest.mark.parametrize("texts", [[], [HOURS]])
async def test_nothing_near_enough_goes_to_a_person(model: Model, texts: list[str]) -> None:
    question = "Who painted the Mona Lisa?"
    assert called(await model(question, *found(question, *texts))) == HANDOFF_EN
    answer = await model(question, *found(question, *texts), tools=[*TOOLS, PERSON])
    reason = "The offline model found no reliable answer to: Who painted the Mona Lisa?"
    assert called(answer) == ("call_person", {"reason": reason})


async def test_a_person_is_called_on_request(model: Model) -> None:
    answer = await model(
        "Ich möchte bitte mit einem echten Menschen sprechen", language="de", tools=[*TOOLS, PERSON]
    )
    assert isinstance(called(answer), tuple)
    assert called(answer)[0] == "call_person"
    assert called(await model("Let me talk to a human please", tools=[])) == HANDOFF_EN


async def test_the_same_call_is_never_made_twice(model: Model) -> None:
    text = "Please note that I come later"
    broken = after("crm_add_note", {"text": text}, {"ok": True})[:1]
    assert called(await model(text, *broken)) == HANDOFF_EN
    assert called(await model(text)) == ("crm_add_note", {"text": text})


async def test_a_repeated_turn_makes_the_same_call_id(model: Model) -> None:
    first, again = await model("What does it cost?"), await model("What does it cost?")
    other = await model("What does the other one cost?")
    assert first.tool_calls[0]["id"] == again.tool_calls[0]["id"] != other.tool_calls[0]["id"]


async def test_it_streams_word_by_word_through_the_gateway(
    library: ExampleLibrary, embedder: MiniLMEmbedder
) -> None:
    gateway = ModelGateway(
        ModelSettings(openai_api_key=None, openai_base_url=None), offline_models(library, embedder)
    )
    seen: list[str] = []

    async def collect(delta: str) -> None:
        seen.append(delta)

    reply = await gateway.complete(Task("answer"), [HumanMessage("Hello")], on_delta=collect)
    assert (reply.message.content, reply.model, reply.reduced) == (
        "Hello! How can I help you?",
        "offline",
        False,
    )
    assert [word.strip() for word in seen] == ["Hello!", "How", "can", "I", "help", "you?"]
    assert "".join(seen) == reply.message.content
    reply = await gateway.complete(Task("answer"), [HumanMessage("What is the price?")], tools=[SEARCH])
    assert called(reply.message) == ("knowledge_search", {"query": "What is the price?"})


async def test_synchronous_calls_work_inside_a_running_loop(model: Model) -> None:
    assert asyncio.get_running_loop().is_running()
    assert (
        model.make(Task("answer", language="de")).invoke("Hallo").content
        == "Hallo! Wie kann ich Ihnen helfen?"
    )


class BrokenEmbedder:
    """An embedding endpoint that is down, as the provider may be when the offline model is needed."""

    model_id, dim, max_tokens = "openai-x", 3, 8000

    async def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
        raise ConnectionError

    async def embed_query(self, text: str) -> np.ndarray:
        raise ConnectionError


async def test_it_works_without_embeddings(library: ExampleLibrary) -> None:
    model = Model(library, BrokenEmbedder())
    question = "Haben Sie am Samstag geöffnet?"
    assert called(await model(question, language="de")) == ("knowledge_search", {"query": question})
    answer = str(called(await model(question, *found(question, RENT, HOURS), language="de")))
    assert answer.startswith("Am Samstag haben wir von 9 bis 13 Uhr geöffnet. [K2:")
