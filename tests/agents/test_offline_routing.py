"""How well the offline model routes sentences that are not among its examples.

The sentences were written before the first measurement, and nothing was tuned to them. Measured first: 25 of
28 right in English and in German (.89). The floor stands a little under it, so that a change of examples or
weights that costs accuracy is seen.
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from agents.models import Task
from agents.offline import offline_models
from agents.offline_examples import ExampleLibrary
from storage.vectors.minilm import MiniLMEmbedder

PROMPTS = Path(__file__).parents[2] / "prompts"

HELD_OUT = {
    "en": [
        ("sales", "What would an e-bike for a tall person set me back?"),
        ("sales", "My daughter turns eight, which kids bike fits her?"),
        ("sales", "Could I take the cargo bike for a spin before deciding?"),
        ("sales", "We run a hotel and are thinking of buying a fleet of bikes"),
        ("sales", "Does the black one come in medium?"),
        ("sales", "Any special offers on last year's models?"),
        ("sales", "Which of your bicycles is best for mountain trails?"),
        ("support", "The motor cuts out on steep hills"),
        ("support", "My rear brake makes an awful noise"),
        ("support", "The lock you sold me is jammed"),
        ("support", "My display only shows E07, what does that mean?"),
        ("support", "Does the guarantee cover a cracked frame?"),
        ("support", "The chain keeps falling off since last week"),
        ("support", "I am unhappy with the work of your mechanic"),
        ("billing", "Why is there an extra 20 euros on my bill?"),
        ("billing", "I paid last Friday but you sent me a reminder"),
        ("billing", "Do you accept American Express?"),
        ("billing", "Please email me a copy of invoice 2026-118"),
        ("billing", "How long until the money is back on my account?"),
        ("billing", "Our company name is misspelled on the invoice"),
        ("billing", "Could I pay in three parts?"),
        ("operations", "Are you open this Sunday?"),
        ("operations", "I can't make it on Thursday, can we reschedule?"),
        ("operations", "Has my parcel left your warehouse yet?"),
        ("operations", "We'd like to hire two e-bikes for a day trip"),
        ("operations", "When will the workshop be done with my bike?"),
        ("operations", "Till what time can I drop off the bike tonight?"),
        ("operations", "How do I get to your store by bus?"),
    ],
    "de": [
        ("sales", "Wie teuer ist das günstigste Lastenrad?"),
        ("sales", "Meine Tochter wird acht, welches Kinderrad passt ihr?"),
        ("sales", "Darf ich das E-Bike vor der Entscheidung Probe fahren?"),
        ("sales", "Wir betreiben ein Hotel und möchten mehrere Räder anschaffen"),
        ("sales", "Gibt es das schwarze Modell auch in Größe M?"),
        ("sales", "Haben Sie gerade Sonderangebote?"),
        ("sales", "Bietet mein Chef Leasing an, was kostet mich das im Monat?"),
        ("support", "Der Motor setzt bergauf ständig aus"),
        ("support", "Die hintere Bremse macht furchtbare Geräusche"),
        ("support", "Das Schloss, das Sie mir verkauft haben, klemmt"),
        ("support", "Am Display steht E07, was bedeutet das?"),
        ("support", "Deckt die Garantie einen Riss im Rahmen ab?"),
        ("support", "Seit letzter Woche springt dauernd die Kette herunter"),
        ("support", "Ich bin mit der Arbeit Ihres Mechanikers unzufrieden"),
        ("billing", "Warum stehen auf der Rechnung 20 Euro mehr?"),
        ("billing", "Ich habe am Freitag gezahlt und trotzdem eine Mahnung erhalten"),
        ("billing", "Akzeptieren Sie American Express?"),
        ("billing", "Bitte mailen Sie mir die Rechnung 2026-118 noch einmal"),
        ("billing", "Wie lange dauert es, bis das Geld wieder am Konto ist?"),
        ("billing", "Unser Firmenname ist auf der Rechnung falsch geschrieben"),
        ("billing", "Könnte ich in drei Teilbeträgen zahlen?"),
        ("operations", "Haben Sie diesen Sonntag offen?"),
        ("operations", "Am Donnerstag schaffe ich es nicht, geht ein anderer Termin?"),
        ("operations", "Ist mein Paket schon unterwegs?"),
        ("operations", "Wir würden gern zwei E-Bikes für einen Tagesausflug ausleihen"),
        ("operations", "Wann ist die Werkstatt mit meinem Rad fertig?"),
        ("operations", "Bis wie viel Uhr kann ich das Rad heute Abend vorbeibringen?"),
        ("operations", "Wie komme ich mit dem Bus zu Ihnen?"),
    ],
}
OUT_OF_SCOPE = {
    "en": ["Who won the football match yesterday?", "Write me a poem about the sea",
           "What is the capital of Peru?", "asdf qwer", "Translate this sentence into Latin",
           "How tall is the Eiffel tower?"],
    "de": ["Wer hat gestern das Fußballspiel gewonnen?", "Schreib mir ein Gedicht über das Meer",
           "Was ist die Hauptstadt von Peru?", "asdf qwer", "Übersetze diesen Satz ins Lateinische",
           "Wie hoch ist der Eiffelturm?"],
}  # fmt: skip
FLOOR = 0.85


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> MiniLMEmbedder:
    return MiniLMEmbedder(tmp_path_factory.mktemp("minilm"))


@pytest.fixture(scope="module")
def library() -> ExampleLibrary:
    return ExampleLibrary.load(PROMPTS)


Routed = list[dict[str, Any]]


async def route(library: ExampleLibrary, embedder: MiniLMEmbedder, sentences: list[str]) -> Routed:
    model = offline_models(library, embedder)(Task("route"))
    answers = [await model.ainvoke([HumanMessage(sentence)]) for sentence in sentences]
    return [json.loads(str(answer.content)) for answer in answers]


def test_no_held_out_sentence_is_an_example(library: ExampleLibrary) -> None:
    seen = {text.casefold() for by in library.routes.values() for texts in by.values() for text in texts}
    assert not seen & {text.casefold() for held_out in HELD_OUT.values() for _, text in held_out}


@pytest.mark.parametrize("language", ["en", "de"])
async def test_accuracy(
    library: ExampleLibrary,
    embedder: MiniLMEmbedder,
    language: str,
    record_property: Callable[[str, object], None],
) -> None:
    inside = await route(library, embedder, [text for _, text in HELD_OUT[language]])
    outside = await route(library, embedder, OUT_OF_SCOPE[language])
    pairs = list(zip(HELD_OUT[language], inside, strict=True))
    wrong = [(agent, text, answer) for (agent, text), answer in pairs if answer["agent"] != agent]
    accuracy = 1 - len(wrong) / len(inside)
    record_property("accuracy", round(accuracy, 3))
    assert accuracy >= FLOOR, wrong
    assert {answer["language"] for answer in inside} == {language}
    assert {answer["agent"] for answer in inside + outside} <= set(library.routes)
    sure = statistics.median(answer["confidence"] for answer in inside)
    assert sure > max(answer["confidence"] for answer in outside)
    assert {answer["agent"] for answer in outside} == {"support"}
