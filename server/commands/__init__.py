"""The commands behind `python -m server`, a module each where there is more to it than a call."""

import argparse
import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from server.telemetry import configure_logging


def dispatch(arguments: argparse.Namespace) -> int:  # noqa: C901  # a table of commands, each a line or two
    """Carry out the parsed command; returns the exit code."""
    configure_logging("WARNING", sys.stderr)  # the services below say what they want instead
    match arguments.command:
        case "run":
            from server.run import Parent
            from storage.settings import StorageSettings

            parent = Parent(
                StorageSettings(),
                workers=arguments.workers,
                seed=not arguments.no_seed,
                reload=arguments.reload,
                port=arguments.port,
            )
            return parent.run()
        case "api":
            from server.commands.api import serve

            serve(arguments.host, arguments.port, arguments.fd)
        case "worker":
            from server import worker

            _log_as_a_service()
            worker.main()
        case "migrate":
            from server.deps import make_keyring_if_given
            from storage.migrate import migrate
            from storage.settings import StorageSettings

            migrate(StorageSettings(), make_keyring_if_given())
        case "quarantine":
            from server.commands.quarantine import run_turn

            _log_as_a_service()
            return _run(run_turn(arguments.tenant, arguments.thread, arguments.fence))
        case "seed":
            from server.commands.documents import seed_demo

            return _run(seed_demo())
        case "ingest":
            from server.commands.documents import ingest_files

            return _run(ingest_files(arguments.files, arguments.tenant))
        case "reindex":
            from server.commands.documents import reindex

            return _run(reindex(arguments.tenant))
        case "chat":
            from server.commands.chat import chat

            return chat(as_json=arguments.json)
        case "keys":
            from server.commands.keys import run

            return _run(run(arguments))
        case "audit":
            from server.commands.audit import run

            return _run(run(arguments))
        case "privacy":
            from server.commands.privacy import run

            return _run(run(arguments))
        case "users":
            from server.commands.users import run

            return _run(run(arguments))
        case "invariants":
            from server.commands.invariants import report

            return _run(report())
        case "check":
            from server.commands.check import check

            return check()
    return 0


def _run(work: Coroutine[Any, Any, int]) -> int:
    return asyncio.run(work)


def _log_as_a_service() -> None:
    from server.settings import ServerSettings

    configure_logging(ServerSettings().log_level)
