"""Search stays fast under a policy: the plan uses the index with the tenant in it, and reads nobody else's terms."""

import json
from typing import Any

import psycopg

from storage.roles import libpq_url
from storage.settings import StorageSettings
from tests.load.search_under_policy import QUESTION, fill, statement
from tests.support.servers import Addresses


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(inner for part in plan.get("Plans", ()) for inner in nodes(part))]


def test_bm25_reads_by_tenant_and_term(
    addresses: Addresses, database_name: str, storage_settings: StorageSettings
) -> None:
    with psycopg.connect(addresses.database_url(database_name), autocommit=True) as admin:
        tenants = fill(admin)
    with psycopg.connect(libpq_url(storage_settings.role_urls().app)) as app:
        app.execute("select set_config('app.tenant_id', %s, true)", (str(tenants[0]),))
        explained = app.execute(
            f"explain (analyze, format json) {statement()}".encode(), {"question": QUESTION, "limit": 20}
        ).fetchone()
    assert explained is not None
    plan = explained[0] if isinstance(explained[0], list) else json.loads(explained[0])
    reads = [node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") == "kb_terms"]
    assert reads
    for node in reads:
        assert node["Node Type"] in ("Index Scan", "Index Only Scan", "Bitmap Heap Scan"), node["Node Type"]
    conditions = [
        node["Index Cond"] for node in nodes(plan[0]["Plan"]) if "kb_terms" in str(node.get("Index Name"))
    ]
    assert conditions
    assert all("tenant_id" in condition for condition in conditions)
    assert any("term" in condition for condition in conditions)
