"""How well the built-in offline model answers a demo business: real ingest, real search, real turns.

What is measured, on questions that are worded apart from the documents:

* answered: the reply, or the quote of one of its citations, holds the words that answer the question;
* cited: a citation names the document and the page on which the answer stands;
* handed off: the thread waits for a person, and nothing was claimed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import text

from server.demo.business import DOCUMENTS
from server.deps import Parts
from storage.repositories import knowledge
from storage.repositories.threads import Message
from tests.support.world import TestTenant, make_visitor

HERE = Path(__file__).parent
DEMO = DOCUMENTS.parent / "questions.yaml"


@dataclass(frozen=True)
class Question:
    """One question whose answer stands in the documents."""

    question: str
    language: str
    document: str
    page: int
    must_contain: str


@dataclass(frozen=True)
class Act:
    """Messages of one visitor, and what the last one must have brought about (see `Outcome.did`)."""

    messages: tuple[str, ...]
    expected: str


@dataclass(frozen=True)
class Outcome:
    """What came of one visitor's messages.

    Attributes:
        did: "person", "lead", "note", "ask" (for an address), "answer" (with a citation) or "talk".
        reply: the last reply.
    """

    did: str
    reply: Message


@dataclass(frozen=True)
class Score:
    """Counts of one set of questions; `lines` tells each failure, for reading."""

    asked: int
    answered: int
    cited: int
    handed_off: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.answered} of {self.asked} answered, {self.cited} cited right, {self.handed_off} handed off, "
            f"{self.asked - self.answered - self.handed_off} answered beside the point"
        )


def demo_questions() -> list[Question]:
    """The demo's own questions, in the order of their file."""
    return _questions(yaml.safe_load(DEMO.read_text(encoding="utf-8")))


def question_file(name: str) -> Any:
    """A set of questions beside this module, as it stands in its file."""
    return yaml.safe_load((HERE / name).read_text(encoding="utf-8"))


def _questions(entries: Sequence[dict[str, Any]]) -> list[Question]:
    return [Question(**entry) for entry in entries]


def fresh_questions() -> list[Question]:
    """Questions that were written after the model was tuned, and never tuned on."""
    return _questions(question_file("fresh.yaml")["inside"])


def outside(name: str = "outside.yaml") -> list[str]:
    """Questions that the documents do not answer."""
    return list(question_file(name)["outside"])


def acts(name: str = "acts.yaml") -> list[Act]:
    """Wishes that a tool or a person fulfils."""
    return [Act(tuple(entry["messages"]), entry["expected"]) for entry in question_file(name)["acts"]]


async def take_in(parts: Parts, tenant: TestTenant, folder: Path = DOCUMENTS) -> dict[str, str]:
    """Ingest a folder's documents; returns title -> file name, since a citation names the title."""
    for path in sorted(folder.iterdir()):
        document = await parts.intake.accept(tenant.context, path.read_bytes(), path.name, source="demo")
        assert await parts.intake.process(tenant.context, document) == "ready"
    async with parts.database.tenant_session(tenant.context) as session:
        return {row["title"]: row["filename"] for row in await knowledge.list_documents(session)}


@dataclass
class Shop:
    """A tenant with documents, and a worker that answers its visitors."""

    parts: Parts
    tenant: TestTenant
    titles: dict[str, str]
    drain: Callable[..., Any]

    async def ask(self, *messages: str) -> Outcome:
        """Write the messages as a new visitor, each after the reply to the one before."""
        visitor = await make_visitor(self.parts, self.tenant)
        for message in messages:
            await visitor.write(message)
            await self.drain(self.tenant.info.id, visitor.thread_id)
        replies = await visitor.replies()
        assert len(replies) == len(messages)
        async with self.parts.database.tenant_session(self.tenant.context) as session:
            row = (
                await session.execute(
                    text("""
                    select t.needs_human_at is not null as person,
                           exists (select from leads where thread_id = t.id) as lead,
                           exists (select from notes n where n.contact_id = t.contact_id) as note
                      from threads t where t.id = :thread
                    """),
                    {"thread": visitor.thread_id},
                )
            ).one()
        return Outcome(_did(row.person, row.lead, row.note, replies[-1]), replies[-1])

    async def score(self, questions: Sequence[Question]) -> Score:
        """Ask all questions, each as a new visitor."""
        answered = cited = handed_off = 0
        lines = []
        for question in questions:
            outcome = await self.ask(question.question)
            quotes = [_plain(citation["quote"]) for citation in outcome.reply.citations]
            wanted = _plain(question.must_contain)
            right = any(wanted in held for held in (_plain(outcome.reply.text or ""), *quotes))
            place = (question.document, question.page)
            right_place = any(
                (self.titles[citation["document"]], citation["page"]) == place
                for citation in outcome.reply.citations
            )
            answered += right
            cited += right_place
            handed_off += outcome.did == "person"
            if not right:
                lines.append(
                    f"{question.question}\n    {outcome.did} {outcome.reply.agent}: {outcome.reply.text!r}"
                )
        return Score(len(questions), answered, cited, handed_off, tuple(lines))


def _did(person: bool, lead: bool, note: bool, reply: Message) -> str:
    if person:
        return "person"
    if reply.citations:
        return "answer"
    if note:
        return "note"
    if lead:
        return "lead"
    asks = ("I still need", "brauche ich noch")
    return "ask" if any(words in (reply.text or "") for words in asks) else "talk"


def _plain(words: str) -> str:
    """Words and numbers without the bars of a table and the ends of lines."""
    return " ".join(words.replace("|", " ").split())
