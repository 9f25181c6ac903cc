"""Servers for benchmarks, with real commits to disk; and one benchmark by itself: ``python -m tests.load.guard_overhead``."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.load.figures import write_figures
from tests.support.servers import MASTER_KEYS, TEMPLATE, Addresses, make_template, start_servers

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def served() -> Iterator[Addresses]:
    """Servers of a benchmark's own, with a database (TEMPLATE) that the migrations have built."""
    os.environ["MODEL_CACHE_DIR"] = str(ROOT / "build" / "models")
    os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
    os.environ["MASTER_KEYS"] = MASTER_KEYS
    servers = start_servers(("max_connections=200",))
    try:
        data = Path(tempfile.mkdtemp(prefix="data-", dir=servers.folder))
        addresses = Addresses(servers.postgres_port, servers.redis_url, servers.chroma_url, data)
        make_template(addresses)
        yield addresses
    finally:
        servers.stop()


def main(file: str, measure: Callable[[Addresses, str], list[dict[str, Any]]]) -> None:
    """Start servers, measure, write the figures, stop the servers."""
    with served() as addresses:
        write_figures(file, measure(addresses, TEMPLATE))
