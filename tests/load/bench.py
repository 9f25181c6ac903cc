"""`make bench`: figures into build/bench/."""

import argparse
import os

import psycopg
import uvloop

from tests.load import (
    guard_overhead,
    limiter,
    path_against_graph,
    search_under_policy,
    sign_in_load,
    sustained,
)
from tests.load.alone import served
from tests.load.figures import write_figures
from tests.support.servers import MASTER_KEYS, TEMPLATE, settings_for

ALL = ["path", "search", "limiter", "guard", "sign-in", "sustained"]


def main() -> None:
    """Run all benchmarks, or the named ones; each has servers of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", choices=[*ALL, []], help=f"{', '.join(ALL)} (all)")
    only = parser.parse_args().only or ALL
    os.environ["MASTER_KEYS"] = MASTER_KEYS
    if "path" in only:
        with served() as addresses:
            uvloop.run(path_against_graph.measure(addresses, TEMPLATE))
    if "search" in only:
        with served() as addresses:
            with psycopg.connect(addresses.database_url(TEMPLATE), autocommit=True) as admin:
                tenants = search_under_policy.fill(admin)
            urls = settings_for(addresses, TEMPLATE).role_urls()
            write_figures("search", search_under_policy.measure(urls, tenants))
    if "limiter" in only:
        with served() as addresses:
            write_figures("limiter", uvloop.run(limiter.measure(addresses.redis_url)))
    if "guard" in only:
        with served() as addresses:
            write_figures("guard_overhead", uvloop.run(guard_overhead.measure(addresses, TEMPLATE)))
    if "sign-in" in only:
        with served() as addresses:
            write_figures("sign_in_load", sign_in_load.measure(addresses, TEMPLATE))
    if "sustained" in only:
        sustained.measure()


if __name__ == "__main__":
    main()
