"""Which step the offline model takes on sentences that are not among its examples.

The one threshold of `SURE` was chosen with these sentences in sight, so this is a development set and no
measurement of strangers' messages. What it holds firmly: a question never sets off a tool that acts.
"""

from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage

from agents.models import Task
from agents.offline import offline_models
from agents.offline_examples import ExampleLibrary
from storage.vectors.minilm import MiniLMEmbedder

PROMPTS = Path(__file__).parents[2] / "prompts"
SENTENCES = {
    "en": [
        ("knowledge_search", "How much is the annual check of a bike?"),
        ("knowledge_search", "Is the leasing offer open to freelancers?"),
        ("knowledge_search", "Do you have cargo bikes for rent at the weekend?"),
        ("knowledge_search", "Can I bring my bike in without an appointment?"),
        ("knowledge_search", "I have a flat tyre, what will it cost?"),
        ("knowledge_search", "When is my invoice due?"),
        ("knowledge_search", "My battery is empty after ten kilometres"),
        ("knowledge_search", "What is the deposit for a rental?"),
        ("knowledge_search", "Could you tell me the price of a new battery?"),
        ("knowledge_search", "I am looking for a bike for my son"),
        ("knowledge_search", "Can you send the bike to Salzburg?"),
        ("knowledge_search", "The gears slip"),
        ("crm_create_lead", "I want a quote for five cargo bikes, mail me at ⟦EMAIL_1⟧"),
        ("crm_create_lead", "Somebody should ring me on ⟦PHONE_1⟧ about e-bike leasing"),
        ("crm_create_lead", "Could a colleague get in touch with me about buying a bike?"),
        ("crm_create_lead", "I'd love to order a bike, contact me please: ⟦EMAIL_1⟧"),
        ("crm_add_note", "Please make a note that the frame is scratched"),
        ("crm_add_note", "Can you write down that I am on holiday next week?"),
        ("crm_find_contact", "Am I in your system already?"),
        ("call_person", "I'd rather speak with a real human"),
        ("call_person", "Can I talk to an employee?"),
        ("talk", "hey"),
        ("talk", "good evening"),
        ("talk", "thx a lot"),
    ],
    "de": [
        ("knowledge_search", "Wie viel kostet das jährliche Service?"),
        ("knowledge_search", "Gilt das Leasing auch für Selbstständige?"),
        ("knowledge_search", "Kann man am Wochenende ein Lastenrad ausleihen?"),
        ("knowledge_search", "Kann ich ohne Termin vorbeikommen?"),
        ("knowledge_search", "Ich habe einen Patschen, was kostet die Reparatur?"),
        ("knowledge_search", "Wann ist die Rechnung fällig?"),
        ("knowledge_search", "Mein Akku ist nach zehn Kilometern leer"),
        ("knowledge_search", "Wie hoch ist die Kaution bei der Miete?"),
        ("knowledge_search", "Was kostet ein neuer Akku?"),
        ("knowledge_search", "Ich suche ein Rad für meinen Sohn"),
        ("knowledge_search", "Schicken Sie das Rad auch nach Salzburg?"),
        ("knowledge_search", "Die Gänge springen"),
        ("crm_create_lead", "Ich möchte ein Angebot für fünf Lastenräder, bitte an ⟦EMAIL_1⟧"),
        ("crm_create_lead", "Kann mich bitte jemand unter ⟦PHONE_1⟧ wegen Leasing anrufen?"),
        ("crm_create_lead", "Könnte sich ein Kollege wegen eines Radkaufs bei mir melden?"),
        ("crm_create_lead", "Ich will ein E-Bike bestellen, bitte kontaktieren Sie mich: ⟦EMAIL_1⟧"),
        ("crm_add_note", "Bitte notieren Sie, dass der Rahmen verkratzt ist"),
        ("crm_add_note", "Können Sie sich aufschreiben, dass ich nächste Woche im Urlaub bin?"),
        ("crm_find_contact", "Bin ich bei Ihnen schon im System?"),
        ("call_person", "Ich möchte lieber mit einem echten Menschen reden"),
        ("call_person", "Kann ich mit einem Mitarbeiter sprechen?"),
        ("talk", "Servus"),
        ("talk", "schönen guten Abend"),
        ("talk", "Danke schön"),
    ],
}


def tool(name: str, **kinds: str) -> dict[str, object]:
    properties = {field: {"type": "string", "x-pii": kind} for field, kind in kinds.items()}
    parameters = {"type": "object", "properties": properties, "required": []}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


TOOLS = [
    tool("knowledge_search"),
    tool("crm_create_lead", subject="TEXT"),
    tool("crm_add_note", text="TEXT"),
    tool("crm_find_contact"),
    tool("call_person", reason="TEXT"),
]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> MiniLMEmbedder:
    return MiniLMEmbedder(tmp_path_factory.mktemp("minilm"))


@pytest.mark.parametrize("language", ["en", "de"])
async def test_steps(embedder: MiniLMEmbedder, language: str) -> None:
    library = ExampleLibrary.load(PROMPTS)
    seen = {text for by in library.calls.values() for texts in by.values() for text in texts}
    assert not seen & {text for _, text in SENTENCES[language]}
    model = offline_models(library, embedder)(Task("answer", "sales", language)).bind_tools(TOOLS)
    wrong = []
    for step, text in SENTENCES[language]:
        answer = await model.ainvoke([HumanMessage(text)])
        taken = answer.tool_calls[0]["name"] if answer.tool_calls else "talk"
        if taken != step:
            wrong.append((step, taken, text))
    assert wrong == []
