"""`make bench`: figures into build/bench/. Servers of its own, with real commits to disk."""

import argparse
import os
import tempfile
from pathlib import Path

import uvloop

from tests.load import path_against_graph, sustained
from tests.support.servers import MASTER_KEYS, TEMPLATE, Addresses, make_template, start_servers

ROOT = Path(__file__).resolve().parents[2]
WITH_DISK = ("max_connections=200",)


ALL = ["path", "search", "sustained", "limiter", "guard", "sign-in"]


def main() -> None:
    """Run all benchmarks, or the named ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", choices=[*ALL, []], help=f"{', '.join(ALL)} (all)")
    only = parser.parse_args().only or ALL
    os.environ["MODEL_CACHE_DIR"] = str(ROOT / "build" / "models")
    os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
    os.environ["MASTER_KEYS"] = MASTER_KEYS
    if "path" in only:
        servers = start_servers(WITH_DISK)
        try:
            addresses = Addresses(
                servers.postgres_port,
                servers.redis_url,
                servers.chroma_url,
                Path(tempfile.mkdtemp(dir=servers.folder)),
            )
            make_template(addresses)
            uvloop.run(path_against_graph.measure(addresses, TEMPLATE))
        finally:
            servers.stop()
    if "sustained" in only:
        sustained.measure()


if __name__ == "__main__":
    main()
