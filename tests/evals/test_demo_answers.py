"""The offline model before the demo business: floors a little under what was measured."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from server.deps import build_parts
from server.settings import ServerSettings
from tests.evals.demo_answers import Shop, acts, demo_questions, outside, take_in
from tests.support.servers import TEMPLATE, Addresses, settings_for
from tests.support.world import answering, make_tenant

DATABASE = "test_demo_answers"


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


async def test_odd(shop: Shop) -> None:
    score = await shop.score(demo_questions()[0::2])
    print("ODD", score)
    print("\n".join(score.lines))


async def test_even(shop: Shop) -> None:
    score = await shop.score(demo_questions()[1::2])
    print("EVEN", score)


async def test_outside(shop: Shop) -> None:
    good = 0
    for question in outside():
        outcome = await shop.ask(question)
        good += outcome.did == "person"
        if outcome.did != "person":
            print(question, "\n    ", outcome.did, outcome.reply.agent, repr(outcome.reply.text))
    print("OUTSIDE", good)


async def test_acts(shop: Shop) -> None:
    good = 0
    for act in acts():
        outcome = await shop.ask(*act.messages)
        good += outcome.did == act.expected
        if outcome.did != act.expected:
            print(act, "\n    ", outcome.did, outcome.reply.agent, repr(outcome.reply.text))
    print("ACTS", good, "of", len(acts()))
