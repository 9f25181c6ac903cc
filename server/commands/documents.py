"""Documents from the command line, with a bar where it takes a while."""

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from server.commands.environment import adopt_environment
from server.demo.business import seed
from server.deps import opened_parts
from storage.errors import AppError
from storage.repositories import directory
from storage.tenancy import TenantContext


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description:40.40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )


def _moves(bar: Progress, task: TaskID) -> Callable[[int, int], None]:
    return lambda done, total: bar.update(task, completed=done, total=total)


async def seed_demo() -> int:
    """The demo tenant. SEED_ORIGINS and SEED_STAFF_PASSWORD come from the parent."""
    adopt_environment()
    password = os.environ.get("SEED_STAFF_PASSWORD") or secrets.token_urlsafe(12)
    origins = [origin for origin in os.environ.get("SEED_ORIGINS", "").split(",") if origin]
    with _bar() as bar:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        async with opened_parts("seed") as parts:
            await seed(parts, origins=origins, staff_password=password, progress=progress)
    if not os.environ.get("SEED_STAFF_PASSWORD"):
        print(f"staff@alpenrad.example has the password {password}")
    return 0


async def ingest_files(files: list[Path], tenant_slug: str) -> int:
    """Take files in; exit 1 where one was refused, after all were tried."""
    adopt_environment()
    refused = 0
    async with opened_parts("ingest") as parts:
        async with parts.database.platform_session("ingest: which tenant is meant") as session:
            tenant = await directory.tenant_by_slug(session, tenant_slug)
        context = TenantContext(tenant.id, actor="user:command-line")
        with _bar() as bar:
            for path in files:
                task = bar.add_task(path.name, total=None)
                try:
                    document_id = await parts.intake.accept(context, path.read_bytes(), path.name, wake=False)
                    state = await parts.intake.process(context, document_id, _moves(bar, task))
                    bar.console.print(f"{path.name}: {state}")
                except (AppError, OSError) as error:
                    refused += 1
                    bar.stop_task(task)
                    reason = (
                        f"{error.details.get('reason', error.code)}: {error.message}"
                        if isinstance(error, AppError)
                        else str(error)
                    )
                    print(f"{path.name}: {reason}", file=sys.stderr)
    return 1 if refused else 0


async def reindex(tenant_slug: str) -> int:
    """Build the tenant's part of the vector index anew."""
    adopt_environment()
    async with opened_parts("reindex") as parts:
        async with parts.database.platform_session("reindex: which tenant is meant") as session:
            tenant = await directory.tenant_by_slug(session, tenant_slug)
        with _bar() as bar:
            task = bar.add_task("documents", total=None)
            count = await parts.intake.rebuild(
                TenantContext(tenant.id, actor="job:reindex"), _moves(bar, task)
            )
    print(f"{count} documents indexed")
    return 0
