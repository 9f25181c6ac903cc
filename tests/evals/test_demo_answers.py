"""The offline model before the demo business: each floor stands a little under what was measured.

The thresholds were chosen on the odd ones of the demo's questions and on the first questions outside; the even
ones were counted while tuning, but never read; the fresh ones were written afterwards.
"""

import os
from collections.abc import AsyncIterator

import psycopg
import pytest

from server.deps import build_parts
from server.settings import ServerSettings
from tests.evals.demo_answers import (
    Shop,
    acts,
    demo_questions,
    fresh_questions,
    outside,
    take_in,
)
from tests.support.servers import TEMPLATE, Addresses, settings_for
from tests.support.world import answering, make_tenant

DATABASE = f"test_demo_answers_{os.getpid()}"


@pytest.fixture(scope="module")
async def shop(addresses: Addresses) -> AsyncIterator[Shop]:
    """One database and one ingest for the module: no question changes what another one finds."""
    with psycopg.connect(addresses.database_url("postgres"), autocommit=True) as connection:
        connection.execute(f"create database {DATABASE} template {TEMPLATE}".encode())
        parts = build_parts("test", ServerSettings(), settings_for(addresses, DATABASE))
        try:
            tenant = await make_tenant(parts, "alpenrad")
            titles = await take_in(parts, tenant)
            async with answering(parts) as inbox:
                yield Shop(parts, tenant, titles, inbox.drain)
        finally:
            await parts.aclose()
            connection.execute(f"drop database {DATABASE} with (force)".encode())


# Measured: 6, 3 and 16 answered, 4, 2 and 3 beside the point; the rest went to a person. The demo's questions are worded far from its
# documents on purpose; the fresh ones are everyday ones that nothing was tuned on.
@pytest.mark.parametrize(
    ("part", "answered", "beside_the_point"),
    [("odd", 5, 5), ("even", 2, 3), ("fresh", 15, 4)],
)
async def test_questions_are_answered_or_handed_off(
    shop: Shop, part: str, answered: int, beside_the_point: int
) -> None:
    questions = {
        "odd": demo_questions()[0::2],
        "even": demo_questions()[1::2],
        "fresh": fresh_questions(),
    }[part]
    score = await shop.score(questions)
    assert score.answered >= answered, "\n".join(score.lines)
    assert score.asked - score.answered - score.handed_off <= beside_the_point, "\n".join(score.lines)
    assert score.cited >= score.answered


@pytest.mark.parametrize(("name", "floor"), [("outside.yaml", 14), ("fresh.yaml", 8)])
async def test_what_the_documents_do_not_answer_goes_to_a_person(shop: Shop, name: str, floor: int) -> None:
    outcomes = {question: await shop.ask(question) for question in outside(name)}
    wrong = {
        question: outcome.reply.text for question, outcome in outcomes.items() if outcome.did != "person"
    }
    assert len(outcomes) - len(wrong) >= floor, wrong


@pytest.mark.parametrize(("name", "floor"), [("acts.yaml", 13), ("fresh.yaml", 9)])
async def test_wishes_are_fulfilled(shop: Shop, name: str, floor: int) -> None:
    wrong = []
    wishes = acts(name)
    for act in wishes:
        outcome = await shop.ask(*act.messages)
        if outcome.did != act.expected:
            wrong.append((act, outcome.did, outcome.reply.text))
    assert len(wishes) - len(wrong) >= floor, wrong
