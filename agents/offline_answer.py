"""What to say or do in a specialist's turn: small talk, a tool call, a quoted answer, or a person."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agents.language import LanguageGuesser
from agents.offline_arguments import CONTACT, PLACEHOLDER, Utterance, is_reachable, read_arguments
from agents.offline_examples import SMALLTALK, ExampleLibrary
from agents.offline_passages import Passage, Quote, QuoteFinder, read_passages
from agents.offline_turn import Decision, ToolResult, Turn
from agents.similarity import Seed, SeedClassifier
from storage.vectors.embedder import Embedder

SEARCH = "knowledge_search"
CALL_PERSON = "call_person"
PERSON = "person"
REASON_LIMIT = 300
LEAD, NOTE = "crm_create_lead", "crm_add_note"
DONE = {LEAD: "lead_created", NOTE: "note_added"}
# Nearness that an intent needs before anything but a look into the documents happens.
ACT, TALK = 0.22, 0.42
# Share of the likelihood that a tool needs: looking something up in vain costs less than acting in error.
SURE = 0.5
SMALLTALK_WORDS = 7
FOLLOW_UP_WORDS = 6
OTHER_LANGUAGE = 0.95


class OfflineAnswerer:
    """Answers the task "answer"."""

    def __init__(self, library: ExampleLibrary, embedder: Embedder) -> None:
        self._library = library
        self._embedder = embedder
        self._quotes = QuoteFinder(embedder, library.cues)
        self._guesser = LanguageGuesser(library.languages)
        # all tools, whoever is asked: a wish that only another specialist can fulfil is no question to look up
        self._intents = SeedClassifier(
            [
                Seed(name, spoken, sentence)
                for name, by_language in {**library.calls, **library.smalltalk}.items()
                for spoken, sentences in by_language.items()
                for sentence in sentences
            ],
            embedder,
        )

    async def answer(self, turn: Turn, tools: Sequence[dict[str, Any]], language: str) -> Decision:
        """The next step of the turn."""
        schemas = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
        if turn.results:
            return await self._after_tools(turn, schemas, language)
        asked = _with_context(turn)
        choice = await self._intents.choose(asked, language)
        if choice.label == PERSON and choice.nearness >= ACT:
            return self._hand_off(turn, schemas, language)
        if choice.label in SMALLTALK and choice.nearness >= TALK and len(asked.split()) <= SMALLTALK_WORDS:
            return self._say(choice.label, language)
        acts = choice.label in self._library.calls and choice.label != SEARCH
        if acts and choice.nearness >= ACT and choice.share >= SURE:
            if choice.label not in schemas:
                return self._hand_off(turn, schemas, language)
            return await self._call(choice.label, schemas, asked, turn, language)
        return self._search(turn, schemas, language)

    async def _call(
        self, name: str, schemas: Mapping[str, Any], text: str, turn: Turn, language: str
    ) -> Decision:
        said = Utterance(text, turn.earlier, turn.today, language)
        # in a thread: the date parser loads its tables at first use, and searches slowly
        read = await asyncio.to_thread(read_arguments, schemas[name], said)
        if read.missing:
            wanted = [self._library.field(field, language) for field in read.missing]
            return self._say("ask_missing", language, fields=self._listed(wanted, language))
        return self._once(name, read.values, turn, schemas, language)

    def _search(self, turn: Turn, schemas: Mapping[str, Any], language: str) -> Decision:
        if SEARCH not in schemas or not turn.question.strip():
            return self._hand_off(turn, schemas, language)
        return self._once(SEARCH, {"query": turn.question}, turn, schemas, language)

    def _once(
        self, name: str, arguments: dict[str, Any], turn: Turn, schemas: Mapping[str, Any], language: str
    ) -> Decision:
        if (name, arguments) in turn.called:
            return self._hand_off(turn, schemas, language)
        return Decision(call=(name, arguments))

    def _hand_off(self, turn: Turn, schemas: Mapping[str, Any], language: str) -> Decision:
        """Call a person where there is a tool for it, because a sentence that promises one brings nobody."""
        called = {name for name, _ in turn.called}
        if CALL_PERSON in schemas and CALL_PERSON not in called:
            reason = self._library.reply("handoff_reason", language, question=turn.question[:REASON_LIMIT])
            return Decision(call=(CALL_PERSON, {"reason": reason}))
        return self._say("handoff", language)

    async def _after_tools(self, turn: Turn, schemas: Mapping[str, Any], language: str) -> Decision:
        found: list[Passage] = []
        searched = False
        for result in turn.results:
            passages = read_passages(result.value)
            searched = searched or passages is not None
            found += passages or []
        if searched:
            return await self._quote(turn, schemas, found, language)
        return await self._report(turn.results[-1], turn, schemas, language)

    async def _report(
        self, result: ToolResult, turn: Turn, schemas: Mapping[str, Any], language: str
    ) -> Decision:
        value = result.value if isinstance(result.value, dict) else {}
        if "error" in value or (not value and result.content.strip()):
            return await self._after_failure(result, value, turn, schemas, language)
        if result.name == "crm_find_contact":
            known = bool(value.get("contact") or value.get("contacts") or value.get("found"))
            return self._say("contact_found" if known else "contact_missing", language)
        if value.get("ok") is True:
            return self._say(DONE.get(result.name, "done"), language)
        return self._hand_off(turn, schemas, language)

    async def _after_failure(
        self,
        result: ToolResult,
        value: Mapping[str, Any],
        turn: Turn,
        schemas: Mapping[str, Any],
        language: str,
    ) -> Decision:
        if result.name == NOTE and not is_reachable(turn.question, turn.earlier):
            # a note needs somebody whom it is about
            return self._say("ask_missing", language, fields=self._library.field(CONTACT, language))
        if result.name == NOTE and LEAD in schemas:
            return await self._call(LEAD, schemas, _with_context(turn), turn, language)
        if CALL_PERSON in schemas:
            return self._hand_off(turn, schemas, language)
        return self._say("failed", language, error=_sentence(value.get("error", result.content)))

    async def _quote(
        self, turn: Turn, schemas: Mapping[str, Any], passages: Sequence[Passage], language: str
    ) -> Decision:
        quote = await self._quotes.best(turn.question, passages, language)
        if quote is None:
            return self._hand_off(turn, schemas, language)
        text = self._library.reply("answer", language, text=quote.spoken, citation=quote.citation)
        if self._is_foreign(quote, language):
            text = self._library.reply("other_language", language, answer=text)
        return Decision(text)

    def _is_foreign(self, quote: Quote, language: str) -> bool:
        guessed, probability = self._guesser.guess(quote.spoken, language)
        return guessed != language and probability >= OTHER_LANGUAGE

    def _say(self, name: str, language: str, **values: str) -> Decision:
        return Decision(self._library.reply(name, language, **values))

    def _listed(self, items: Sequence[str], language: str) -> str:
        *first, last = items
        if not first:
            return last
        return self._library.reply("fields_and", language, first=", ".join(first), last=last)


def _with_context(turn: Turn) -> str:
    """The message, after the one before it where it only hands in what was asked for."""
    bare = PLACEHOLDER.sub(" ", turn.question)
    if turn.earlier and bare != turn.question and len(bare.split()) <= FOLLOW_UP_WORDS:
        return f"{turn.earlier[0]} {turn.question}"
    return turn.question


def _sentence(error: Any) -> str:
    text = str(error.get("message", "") if isinstance(error, dict) else error).strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
