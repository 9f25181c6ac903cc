"""`python -m server <what>`: every process of the product starts here.

The working directory comes first on the path, so that `agents`, `tools` and the others are ours and not some
installed package's.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Read by LangGraph at import: checkpoints may hold nothing but messages and plain values.
os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
# Nothing that a customer wrote goes to a tracing service, whatever the environment says.
os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m server", description="AI Secretary")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="start everything that is missing, and keep it running")
    run.add_argument("--workers", type=int, default=1, help="worker processes (1)")
    run.add_argument("--no-seed", action="store_true", help="no demo tenant")
    run.add_argument("--reload", action="store_true", help="restart API and worker when files change")
    run.add_argument("--port", type=int, default=None, help="of the API (8700 where free, else any)")
    api = commands.add_parser("api", help="the API process")
    api.add_argument("--port", type=int, default=8700)
    api.add_argument("--host", default="127.0.0.1")
    api.add_argument(
        "--fd", type=int, default=None, help="an inherited listening socket, instead of host and port"
    )
    commands.add_parser("worker", help="the worker process")
    commands.add_parser("migrate", help="bring the database up to date (needs DATABASE_URL and SECRET_KEY)")
    commands.add_parser("seed", help="make the demo tenant")
    chat = commands.add_parser("chat", help="talk to the secretary in the terminal")
    chat.add_argument("--json", action="store_true", help="one line of text in, one JSON object out")
    ingest = commands.add_parser("ingest", help="take documents in")
    ingest.add_argument("files", nargs="+", type=Path, metavar="FILE")
    reindex = commands.add_parser("reindex", help="build the vector index anew from PostgreSQL")
    for command in (ingest, reindex):
        command.add_argument("--tenant", default="alpenrad", help="short name of the tenant (alpenrad)")
    _keys(commands.add_parser("keys", help="the keys that personal data is sealed with"))
    audit = commands.add_parser("audit", help="the record of who did what")
    audit.add_argument(
        "action", choices=["verify", "anchor"], help="verify the chains; write their ends down"
    )
    audit.add_argument("--tenant", default=None, help="short name of one tenant (all)")
    _privacy(commands.add_parser("privacy", help="retention, and the record of processing"))
    _users(commands.add_parser("users", help="people who sign in, from the machine itself"))
    commands.add_parser(
        "invariants", help="check what must hold when everything is at rest; JSON, exit 1 on a violation"
    )
    commands.add_parser("check", help="check prompts, tools and settings without starting anything")
    quarantine = commands.add_parser("quarantine", help=argparse.SUPPRESS)
    for name in ("tenant", "thread", "fence"):
        quarantine.add_argument(name)
    return top


def _keys(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser(
        "status", help="which keys there are, and whether the master keys open them; else exit 1"
    )
    actions.add_parser(
        "generate", help="make a master key (with MASTER_KMS=local:… it becomes the current one)"
    )
    actions.add_parser("rotate-master", help="wrap all tenants' keys under the current master key")
    rotate = actions.add_parser("rotate-tenant", help="give a tenant a new key, or go on doing so")
    rotate.add_argument("tenant", metavar="SLUG", help="short name of the tenant")
    actions.add_parser("export-tombstones", help="all destroyed keys, a line of JSON each, to the output")
    replay = actions.add_parser("replay-tombstones", help="after a restore: destroy again what was destroyed")
    replay.add_argument("file", type=Path, metavar="FILE", help="destroyed-keys.jsonl, or an export")


def _privacy(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    retention = actions.add_parser(
        "retention", help="remove what is over its time, as each business has said"
    )
    retention.add_argument("--tenant", default=None, help="short name of one tenant (all)")
    retention.add_argument("--dry-run", action="store_true", help="count, and change nothing")
    record = actions.add_parser("record-of-processing", help="Art. 30 GDPR, as Markdown")
    record.add_argument("--tenant", required=True, help="short name of the tenant")


def _users(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="make somebody a member; the password is read from the input")
    add.add_argument("email")
    add.add_argument("--name", required=True)
    add.add_argument("--tenant", default="alpenrad", help="short name; 'platform' for an operator (alpenrad)")
    add.add_argument("--role", default="staff", help="key of a role (staff)")
    unlock = actions.add_parser(
        "reset-second-factor", help="remove all second factors of a person who lost them"
    )
    unlock.add_argument("email")


def main() -> int:
    """Carry out a command; returns the exit code."""
    arguments = parser().parse_args()
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    # Each command imports what it needs: the parent of all processes stays small, and --help is quick.
    from server import commands
    from storage.errors import AppError

    try:
        return commands.dispatch(arguments)
    except AppError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
