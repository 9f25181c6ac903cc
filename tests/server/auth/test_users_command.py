"""`python -m server users`: the command's functions over a real database."""

import io
from argparse import Namespace

import pytest

from server.commands import users
from server.deps import Parts
from storage.errors import NotFound, ValidationFailed
from storage.repositories import accounts
from storage.settings import StorageSettings
from storage.sql import text
from storage.tenancy import PLATFORM_TENANT
from tests.server.auth.people import PASSWORD, audited, behind, person
from tests.support.world import TestTenant


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, storage_settings: StorageSettings, parts: Parts) -> None:
    """The command's own settings are the test's."""
    monkeypatch.setattr(users, "adopt_environment", lambda: None)
    monkeypatch.setattr(users, "StorageSettings", lambda: storage_settings)


def typed(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))


def add(email: str, role: str = "owner", tenant: str = "acme") -> Namespace:
    return Namespace(action="add", email=email, role=role, tenant=tenant, name="Olga")


async def role_of(parts: Parts, email: str) -> str | None:
    found: str | None = await behind(
        parts,
        "select r.key from members m join roles r on r.tenant_id = m.tenant_id and r.id = m.role_id where m.email = :email",
        email=email,
    )
    return found


async def test_the_first_owner(
    parts: Parts, tenant: TestTenant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, PASSWORD)
    assert await users.run(add("Olga@First.example")) == 0
    assert capsys.readouterr().out == "Olga@First.example is a member of acme as owner\n"
    assert await role_of(parts, "olga@first.example") == "owner"
    async with parts.database.identity_session() as session:
        account = await accounts.by_email(session, "olga@first.example")
    assert account is not None
    assert account.email_verified_at is not None
    assert account.password_hash is not None
    assert await audited(parts, tenant.info.id, "member.added") == 1
    # Once more, with another role: nothing is changed, and no password is asked for.
    typed(monkeypatch, "")
    assert await users.run(add("olga@first.example", "staff")) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert await role_of(parts, "olga@first.example") == "owner"
    assert await audited(parts, tenant.info.id, "member.added") == 1


async def test_what_is_refused(parts: Parts, tenant: TestTenant, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "password1234")
    with pytest.raises(ValidationFailed):
        await users.run(add("weak@first.example"))
    with pytest.raises(ValidationFailed, match="no e-mail address"):
        await users.run(add("nobody"))
    with pytest.raises(NotFound):
        await users.run(add("a@first.example", role="emperor"))
    with pytest.raises(NotFound):
        await users.run(add("a@first.example", tenant="nowhere"))
    # Somebody opened it with this address, and nobody knows whether it is theirs.
    stranger = await person(parts, None, verified=False)
    with pytest.raises(ValidationFailed, match="not verified"):
        await users.run(add(stranger.email))
    assert await behind(parts, "select count(*) from accounts where email like '%@first.example'") == 0
    assert await role_of(parts, stranger.email) is None


async def test_a_lost_second_factor(
    parts: Parts, tenant: TestTenant, capsys: pytest.CaptureFixture[str]
) -> None:
    pat = await person(parts, tenant)
    async with parts.database.identity_session() as session:
        await accounts.set_totp(session, pat.account_id, b"sealed", confirmed=True, step=1)
        await accounts.replace_recovery_codes(session, pat.account_id, [b"x" * 32])
        await accounts.add_passkey(
            session, pat.account_id, credential_id=b"c", public_key=b"k", sign_count=0, name="Key"
        )
        await session.execute(
            text("""
            insert into sessions (id, account_id, kind, security_version, amr, expires_at, device, place)
            values (gen_random_uuid(), :id, 'program', 1, '{pwd}', now() + interval '1 hour', 'x', 'x')
            """),
            {"id": pat.account_id},
        )
    assert await users.run(Namespace(action="reset", email=pat.email)) == 0
    assert "no second factor any more" in capsys.readouterr().out
    async with parts.database.identity_session() as session:
        account = await accounts.by_id(session, pat.account_id)
        left = await accounts.recovery_codes_left(session, pat.account_id)
    assert (account.has_second_factor, account.totp_secret, left) == (False, None, 0)
    assert await behind(
        parts, "select revoked_reason from sessions where account_id = :id", id=pat.account_id
    ) == ("second factor reset")
    assert await audited(parts, PLATFORM_TENANT, "second_factor.reset") == 1
    with pytest.raises(NotFound):
        await users.run(Namespace(action="reset", email="nobody@first.example"))
