"""The long run: ``python -m tests.fuzz.run --seconds 60 --max-examples 50`` (for each identity) writes build/bench/schemathesis.json."""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from server.telemetry import configure_logging
from tests.fuzz.identities import IDENTITIES, filled
from tests.fuzz.runner import PHASES, Outcome, fuzz
from tests.load.figures import FOLDER
from tests.support.servers import MASTER_KEYS, Addresses, make_template, start_servers

_LEAKS = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "EMBEDDING_MODEL", "MAIL_URL", "PUBLIC_URL", "TRUSTED_PROXIES")


def main() -> int:
    """0 where nothing was found."""
    parser = argparse.ArgumentParser(description="Fuzz the API as each identity.")
    parser.add_argument("--seconds", type=int, default=60, help="for each identity, at most")
    parser.add_argument(
        "--max-examples", type=int, default=30, help="of the fuzzing phase, for each operation"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--identity", action="append", choices=IDENTITIES)
    parser.add_argument("--include", help="only addresses with this regular expression in them")
    parser.add_argument("--phase", action="append", choices=PHASES)
    given = parser.parse_args()
    for name in _LEAKS:
        os.environ.pop(name, None)
    root = Path(__file__).resolve().parents[2]
    os.environ |= {"MODEL_CACHE_DIR": str(root / "build" / "models"), "MASTER_KEYS": MASTER_KEYS}
    os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
    configure_logging("WARNING", sys.stderr)
    servers = start_servers()
    try:
        data = Path(tempfile.mkdtemp(prefix="data-", dir=servers.folder))
        addresses = Addresses(servers.postgres_port, servers.redis_url, servers.chroma_url, data)
        make_template(addresses)
        outcomes = list(_run(addresses, given))
    finally:
        servers.stop()
    return 0 if outcomes and all(outcome.clean for outcome in outcomes) else 1


def _run(addresses: Addresses, given: Any) -> Any:
    report: list[dict[str, Any]] = []
    with filled(addresses) as world:
        for identity in given.identity or IDENTITIES:
            began = time.monotonic()
            outcome = fuzz(
                addresses,
                world,
                identity,
                max_examples=given.max_examples,
                seconds=given.seconds,
                seed=given.seed,
                include=given.include,
                phases=tuple(given.phase or PHASES),
            )
            report.append(_told(outcome, time.monotonic() - began))
            FOLDER.mkdir(parents=True, exist_ok=True)
            (FOLDER / "schemathesis.json").write_text(json.dumps(report, indent=1) + "\n")
            yield outcome


def _told(outcome: Outcome, seconds: float) -> dict[str, Any]:
    told = {
        "identity": outcome.identity,
        "cases": sum(outcome.cases.values()),
        "by_phase": dict(outcome.cases),
        "statuses": {str(status): count for status, count in sorted(outcome.statuses.items())},
        "server_errors": dict(outcome.broken),
        "failures": len(outcome.failures),
        "errors": len(outcome.errors),
        "seconds": round(seconds, 1),
    }
    sys.stdout.write(
        json.dumps(told) + "\n" + "".join(f"{one}\n\n" for one in outcome.failures + outcome.errors)
    )
    sys.stdout.flush()
    return {**told, "found": outcome.failures + outcome.errors}


if __name__ == "__main__":
    sys.exit(main())
