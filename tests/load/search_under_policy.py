"""Full-text search under row-level security against the same search by a role that passes it and names the tenant itself.

BM25 over ``kb_terms`` compares text for equality, which is leakproof, so the index is used under a policy; ``@@`` would not be.
"""

import statistics
import time
from typing import Any
from uuid import UUID

import psycopg

from storage.repositories import knowledge
from storage.roles import RoleUrls, libpq_url
from tests.load.figures import figure

TENANTS, CHUNKS, TERMS = 60, 200, 30
QUESTION = "how much is term7 with term19 and term3"
ROUNDS = 40
_FILL = """
set session_replication_role = replica;  -- rows without their documents: only what the search reads
insert into tenants (id, slug, name) select gen_random_uuid(), 't' || n, 'T' from generate_series(1, {tenants}) n;
insert into kb_lengths (tenant_id, config, chunk_id, length)
select t.id, 'english', gen_random_uuid(), {terms} from tenants t, generate_series(1, {chunks}) where t.slug like 't_%';
insert into kb_terms (tenant_id, config, term, chunk_id, tf)
select l.tenant_id, 'english', 'term' || ((n * 7 + hashtext(l.chunk_id::text) % 17 + 17) % 90), l.chunk_id, 1 + n % 3
  from kb_lengths l, generate_series(1, {terms}) n on conflict do nothing;
set session_replication_role = default;
analyze kb_terms; analyze kb_lengths; analyze tenants;
"""


def fill(admin: psycopg.Connection[Any]) -> list[UUID]:
    """Many tenants with terms; their ids."""
    admin.execute(_FILL.format(tenants=TENANTS, chunks=CHUNKS, terms=TERMS).encode())
    return [row[0] for row in admin.execute("select id from tenants where slug like 't_%' order by id")]


def statement() -> str:
    """The product's own statement."""
    return knowledge.BM25.replace(":question", "%(question)s").replace(":limit", "%(limit)s")


def past_policies() -> str:
    """The same, for a role that sees everybody's rows and says which it wants."""
    own = "(select * from {} where tenant_id = %(tenant)s)"
    return (
        statement()
        .replace("from kb_lengths group", f"from {own.format('kb_lengths')} own group")
        .replace("join kb_terms t on", f"join {own.format('kb_terms')} t on")
        .replace("join kb_lengths l on", f"join {own.format('kb_lengths')} l on")
    )


def measure(urls: RoleUrls, tenants: list[UUID]) -> list[dict[str, Any]]:
    """Milliseconds of a search, interleaved, and their ratio."""
    values: dict[str, Any] = {"question": QUESTION, "limit": 20}
    walled, bare, same = [], [], 0
    with psycopg.connect(libpq_url(urls.app)) as app, psycopg.connect(libpq_url(urls.platform)) as platform:
        for number in range(ROUNDS + 5):
            tenant = tenants[number % len(tenants)]
            began = time.perf_counter()
            with app.transaction():
                app.execute("select set_config('app.tenant_id', %s, true)", (str(tenant),))
                mine = app.execute(statement().encode(), values).fetchall()
            middle = time.perf_counter()
            with platform.transaction():
                theirs = platform.execute(past_policies().encode(), {**values, "tenant": tenant}).fetchall()
            ended = time.perf_counter()
            assert mine, "nothing was found"
            same += mine == theirs
            if number >= 5:
                walled.append(middle - began)
                bare.append(ended - middle)
    assert same == ROUNDS + 5, "the two searches differ"
    median = statistics.median
    return [
        figure("search under the policy, with set_config", median(walled) * 1000, "ms", ROUNDS),
        figure("search past the policy, tenant named", median(bare) * 1000, "ms", ROUNDS),
        figure("search: ratio", median(w / b for w, b in zip(walled, bare, strict=True)), "x", ROUNDS),
    ]
