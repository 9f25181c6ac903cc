"""Which specialist a message is for, by the nearest example sentence."""

import json
import math

from agents.language import LanguageGuesser
from agents.offline_examples import ExampleLibrary
from agents.offline_turn import Decision, Turn
from agents.similarity import Seed, SeedClassifier
from storage.vectors.embedder import Embedder

DEFAULT_AGENT = "support"
THRESHOLD = 0.4
# Nearness at which a message is as likely for none as for the best; how steep the doubt is around it.
MIDDLE, STEEPNESS = 0.16, 24.0


class OfflineRouter:
    """Answers the task "route"."""

    def __init__(self, library: ExampleLibrary, embedder: Embedder) -> None:
        self._guesser = LanguageGuesser(library.languages)
        seeds = [
            Seed(agent, language, text)
            for agent, by_language in library.routes.items()
            for language, texts in by_language.items()
            for text in texts
        ]
        self._classifier = SeedClassifier(seeds, embedder)

    async def route(self, turn: Turn, thread_language: str) -> Decision:
        """JSON with agent, confidence (0 to 1) and language; in doubt the agent is "support"."""
        language, _ = self._guesser.guess(turn.question, thread_language)
        choice = await self._classifier.choose(turn.question, language)
        confidence = choice.share / (1 + math.exp(-STEEPNESS * (choice.nearness - MIDDLE)))
        agent = choice.label if confidence >= THRESHOLD else DEFAULT_AGENT
        answer = {"agent": agent, "confidence": round(confidence, 3), "language": language}
        return Decision(text=json.dumps(answer))
