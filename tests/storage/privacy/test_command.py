"""`python -m server privacy`: the same rules from the machine itself."""

from argparse import Namespace

import pytest

from server.commands.privacy import run
from server.deps import Parts
from storage.errors import NotFound
from storage.ids import new_id
from storage.sql import text
from tests.support.world import TestTenant


@pytest.fixture
def installation(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> Parts:
    """The test's own database and servers, as a command finds them."""
    urls = parts.storage.role_urls()
    for name, value in {
        "DATABASE_APP_URL": urls.app,
        "DATABASE_PLATFORM_URL": urls.platform,
        "DATABASE_IDENTITY_URL": urls.identity,
        "REDIS_URL": parts.storage.redis_url or "",
        "CHROMA_URL": parts.storage.chroma_url or "",
        "SECRETARY_DATA": str(parts.storage.data_dir),
    }.items():
        monkeypatch.setenv(name, value)
    return parts


async def test_retention_is_tried_and_carried_out(
    installation: Parts, tenant: TestTenant, capsys: pytest.CaptureFixture[str]
) -> None:
    async with installation.database.tenant_session(tenant.context) as session:
        await session.execute(
            text("""
            insert into threads (id, channel_id, external_id, epoch, created_at)
            values (:id, :channel, 'visitor', 'x', clock_timestamp() - interval '3 years')
            """),
            {"id": new_id(), "channel": tenant.channel.id},
        )
    said = []
    for slug, dry_run in (("acme", True), (None, False), ("acme", True)):
        assert await run(Namespace(action="retention", tenant=slug, dry_run=dry_run)) == 0
        said.append(capsys.readouterr().out)
    row = ["acme", "conversation", "threads", "1"]
    assert [
        [line.split() for line in out.replace("│", " ").splitlines() if "threads" in line] for out in said
    ] == [[row], [row], []]
    assert "would be removed" in said[0]
    assert "would be removed" not in said[1]
    assert said[2] == "Nothing is over its time.\n"
    with pytest.raises(NotFound, match="No tenant is called 'nobody'"):
        await run(Namespace(action="retention", tenant="nobody", dry_run=True))


async def test_the_record_of_processing_goes_to_the_output(
    installation: Parts, tenant: TestTenant, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(Namespace(action="record-of-processing", tenant=tenant.info.slug)) == 0
    assert capsys.readouterr().out.startswith(
        "# Record of processing activities (Art. 30 GDPR)\n\nController: Acme\n"
    )
