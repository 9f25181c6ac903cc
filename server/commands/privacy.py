"""`python -m server privacy`: retention carried out or tried, and the record of processing."""

import argparse
import sys
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from server.api.privacy import recipients
from server.commands.environment import adopt_environment
from server.deps import opened_parts
from server.jobs.privacy import opened_privacy
from storage.errors import ValidationFailed
from storage.privacy.retention import Report
from storage.privacy.ropa import markdown, record_of
from storage.privacy.rules import rules_of
from storage.repositories import directory, tenants
from storage.repositories.tenants import TenantRecord
from storage.tenancy import Database

PARTS = 7  # rules that a run goes through


async def run(arguments: argparse.Namespace) -> int:
    """Carry an action out; returns the exit code.

    Raises:
        ConfigurationError: nothing says where the installation is.
        NotFound: no such tenant.
    """
    adopt_environment()
    match arguments.action:
        case "retention":
            return await retention(arguments.tenant, dry_run=arguments.dry_run)
        case "record-of-processing":
            return await record_of_processing(arguments.tenant)
    raise ValidationFailed(f"There is no action {arguments.action!r}. See: python -m server privacy --help")


async def retention(slug: str | None, *, dry_run: bool) -> int:
    """Keep the rules of one tenant or of all; can be broken off and repeated."""
    reports: list[tuple[TenantRecord, Report]] = []
    async with (
        opened_parts("privacy") as parts,
        opened_privacy(parts.database, parts.files, parts.bus, parts.storage) as job,
    ):
        chosen = await _tenants(parts.database, slug)
        with _bar() as bar:
            task = bar.add_task("retention", total=len(chosen) * PARTS)
            for tenant in chosen:

                def moved(rule: str, _count: int, name: str = tenant.slug) -> None:
                    bar.update(task, advance=1, description=f"{name}: {rule}")

                reports.append((tenant, await job.retention.run(tenant.id, dry_run=dry_run, progress=moved)))
    _print(reports, dry_run=dry_run)
    return 0


async def record_of_processing(slug: str) -> int:
    """The record to the output."""
    async with opened_parts("privacy") as parts:
        (tenant,) = await _tenants(parts.database, slug)
    sys.stdout.write(
        markdown(record_of(tenant.name, rules_of(tenant.settings), recipients(), datetime.now(UTC)))
    )
    return 0


async def _tenants(database: Database, slug: str | None) -> list[TenantRecord]:
    async with database.platform_session("privacy: which tenants are meant") as session:
        if slug is not None:
            chosen = [(await directory.tenant_by_slug(session, slug)).id]
        else:
            chosen = await directory.tenant_ids(session)
        return [await tenants.get(session, tenant_id) for tenant_id in chosen]


def _print(reports: list[tuple[TenantRecord, Report]], *, dry_run: bool) -> None:
    table = Table("tenant", "rule", "what", "would be removed" if dry_run else "removed")
    for tenant, report in reports:
        for rule, counts in report.counts.items():
            for what, count in counts.items():
                if count:
                    table.add_row(tenant.slug, rule, what, str(count))
    if table.row_count:
        Console().print(table)
    else:
        print("Nothing is over its time.")


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description:40.40}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
