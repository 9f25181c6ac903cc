"""One's own account over HTTP: opening it, links in mails, passwords, invitations; and that none of it can be turned on its owner."""

from typing import Any

import pytest
from litestar import Litestar

from server.app import create_app
from server.auth.identity import INVITATION_LIFE, Where
from server.auth.tenants import slug_of
from server.deps import Parts
from storage.ids import new_id
from storage.repositories import accounts
from storage.tenancy import PLATFORM_TENANT
from tests.server.auth.people import (
    ANOTHER,
    AUTH,
    ME,
    PASSWORD,
    THREADS,
    Device,
    audited,
    behind,
    error,
    link,
    person,
    post,
)
from tests.support.edge import opened
from tests.support.world import TestTenant

_WHERE = Where("192.0.2.1", None, None, "https://app.example", None)
EXPIRED = (422, "VALIDATION_ERROR", {"field": "token"})
VERIFY, RESET, FORGOTTEN, SIGN_UP, ACCEPT = (
    f"{AUTH}/{path}"
    for path in ("verify-email", "password/reset", "password/forgotten", "sign-up", "invitations/accept")
)


def form(email: str, **changed: str) -> dict[str, str]:
    return {"email": email, "password": PASSWORD, "name": "Ada", "business": "Ada's Shop", **changed}


async def invited(app: Litestar, parts: Parts, tenant: TestTenant, email: str, role: str = "staff") -> str:
    """The token of an invitation, as the mail has it."""
    async with parts.database.identity_session() as session:
        role_id = await accounts.role_id(session, tenant.info.id, role)
        await app.state.identity.send_link(
            session,
            "invitation",
            INVITATION_LIFE,
            _WHERE,
            account=None,
            recipient=email,
            language="en",
            values={"inviter": "Ina", "tenant": "Acme", "role": role},
            tenant_id=tenant.info.id,
            payload={"email": email, "role_id": str(role_id), "by": "user:ina"},
        )
    return await link(parts, "invitation", email)


async def test_what_the_form_of_a_new_account_has_to_say(running: Litestar, parts: Parts) -> None:
    wrong: list[tuple[dict[str, Any], int]] = [
        ({"email": "no address"}, 400),
        ({"email": "a@b.example\r\nBcc: x@y.example"}, 400),
        ({"name": "Ada\nBcc: x"}, 400),
        ({"name": ""}, 400),
        ({"language": "german"}, 400),
        ({"time_zone": "Europe/Atlantis"}, 422),
        ({"password": "short"}, 422),
        ({"password": "ada7@fresh.example"}, 422),
        ({"password": "x" * 129}, 422),
        ({"state": "active"}, 400),
    ]
    for number, (changed, status) in enumerate(wrong):
        answer = await Device(running).post(SIGN_UP, {**form(f"ada{number}@fresh.example"), **changed})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, "VALIDATION_ERROR"), changed
    assert await post(parts) == []
    assert await behind(parts, "select count(*) from accounts where email like '%@fresh.example'") == 0


async def test_addresses_are_one_whatever_their_letters(running: Litestar, parts: Parts) -> None:
    assert (await Device(running).post(SIGN_UP, form("Ada@Fresh.Example"))).status_code == 202
    assert (await Device(running).post(SIGN_UP, form("ada@fresh.example"))).status_code == 202
    assert await behind(parts, "select count(*) from accounts where email = 'ada@fresh.example'") == 1
    assert await behind(parts, "select count(*) from tenants where slug = 'ada-s-shop'") == 1
    # Another person's business of the same name.
    assert (await Device(running).post(SIGN_UP, form("bea@fresh.example"))).status_code == 202
    assert await behind(parts, "select count(*) from tenants where slug ~ '^ada-s-shop(-[0-9a-f]{6})?$'") == 2


def test_short_names_of_businesses() -> None:
    assert [slug_of(name) for name in ("Räder & Co.", "--", "株式会社", "A" * 80)] == [
        "rader-co",
        "business",
        "business",
        "a" * 60,
    ]


async def test_links_expire(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    device, email, pat = Device(running), "ada@fresh.example", await person(parts, tenant)
    await device.post(SIGN_UP, form(email))
    verify = await link(parts, "verify_email", email)
    await device.post(FORGOTTEN, {"email": pat.email})
    reset = await link(parts, "reset_password", pat.email)
    lives = "select extract(epoch from expires_at - created_at)::int from one_time_tokens where purpose = :purpose"
    assert [await behind(parts, lives, purpose=one) for one in ("verify_email", "reset_password")] == [
        86_400,
        900,
    ]
    # A link of one kind is nothing for another.
    assert error(await device.post(VERIFY, {"token": reset})) == EXPIRED
    assert error(await device.post(RESET, {"token": verify, "password": ANOTHER})) == EXPIRED
    await behind(parts, "update one_time_tokens set expires_at = clock_timestamp()")
    assert error(await device.post(VERIFY, {"token": verify})) == EXPIRED
    assert error(await device.post(RESET, {"token": reset, "password": ANOTHER})) == EXPIRED
    assert (await Device(running).login(pat.email)).status_code == 200


async def test_one_reset_ends_all_other_links(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    pat = await person(parts, tenant)
    await Device(running).post(FORGOTTEN, {"email": pat.email})
    first = await link(parts, "reset_password", pat.email)
    await Device(running).post(FORGOTTEN, {"email": pat.email})
    second = await link(parts, "reset_password", pat.email)
    assert (await Device(running).post(RESET, {"token": second, "password": ANOTHER})).status_code == 204
    late = await Device(running).post(RESET, {"token": first, "password": PASSWORD})
    assert error(late) == EXPIRED
    assert await audited(parts, PLATFORM_TENANT, "password.reset") == 1


async def test_a_mailbox_is_not_flooded(still: Litestar, parts: Parts, tenant: TestTenant) -> None:
    pat = await person(parts, tenant)
    for path, body in ((FORGOTTEN, {"email": pat.email}), (SIGN_UP, form("nobody@fresh.example"))):
        statuses = [(await Device(still).post(path, body)).status_code for _ in range(7)]
        assert statuses == [202] * 5 + [429] * 2
    # One address cannot be used by the one way after the other was closed.
    assert (await Device(still).post(SIGN_UP, form(pat.email))).status_code == 429
    assert len(await post(parts)) == 10


async def test_links_lead_to_our_own_address(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    """Whoever asks for somebody else's link must not choose where it leads."""
    pat = await person(parts, tenant)
    for host in ("test", "evil.example", "test.evil.example", "localhost:8000", "127.0.0.1:8000"):
        await Device(running).post(
            FORGOTTEN, {"email": pat.email}, host=host, x_forwarded_host="evil.example"
        )
    found = [mail.values["link"].split("/account#")[0] for mail in await post(parts)]
    assert found == [
        "http://test",
        "http://test",
        "http://test",
        "http://localhost:8000",
        "http://127.0.0.1:8000",
    ]


async def test_whoever_opened_an_account_with_a_foreign_address_gains_nothing(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    """Pre-hijacking: the attacker opens the account, the owner of the address comes later, in any of the ways there are."""
    thief, owner = Device(running), Device(running)
    # The owner opens an account too, and uses the link of their own mail.
    await thief.post(SIGN_UP, form("one@victim.example", password=ANOTHER))
    await post(parts)
    await owner.post(SIGN_UP, form("one@victim.example"))
    token = await link(parts, "reset_password", "one@victim.example")
    assert (await owner.post(RESET, {"token": token, "password": PASSWORD})).status_code == 204
    assert (await thief.login("one@victim.example", ANOTHER)).status_code == 401
    assert (await owner.login("one@victim.example")).status_code == 200

    # The owner is invited: the account is taken over, and the mail for its verification ends.
    await thief.post(SIGN_UP, form("two@victim.example", password=ANOTHER))
    verify = await link(parts, "verify_email", "two@victim.example")
    token = await invited(running, parts, tenant, "two@victim.example")
    empty = await owner.post(ACCEPT, {"token": token})
    assert empty.status_code == 422
    joined = await owner.post(ACCEPT, {"token": token, "name": "Vic", "password": PASSWORD})
    assert (joined.status_code, joined.json()) == (200, {"tenant": "acme"})
    assert (await thief.login("two@victim.example", ANOTHER)).status_code == 401
    assert error(await thief.post(VERIFY, {"token": verify})) == EXPIRED
    assert (await owner.login("two@victim.example", tenant="acme")).status_code == 200
    assert (await owner.get(ME)).json()["name"] == "Vic"


async def test_accepting_an_invitation_as_a_new_person(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    device, email = Device(running), "ina@fresh.example"
    token = await invited(running, parts, tenant, email)
    empty = await device.post(ACCEPT, {"token": token})
    assert empty.json()["error"]["details"] == {"fields": [{"field": "password", "message": "missing"}]}
    weak = await device.post(ACCEPT, {"token": token, "name": "Ina", "password": "ina ina ina ina"})
    assert weak.status_code == 422
    done = await device.post(ACCEPT, {"token": token, "name": "Ina", "password": PASSWORD})
    assert (done.status_code, done.json()) == (200, {"tenant": "acme"})
    again = await device.post(ACCEPT, {"token": token, "name": "Ina", "password": ANOTHER})
    assert error(again) == EXPIRED
    assert (await device.login(email)).json()["tenant"] == "acme"
    assert (await device.get(THREADS)).status_code == 200
    assert await audited(parts, tenant.info.id, "member.joined") == 1


async def test_accepting_an_invitation_with_an_account(
    running: Litestar, parts: Parts, tenant: TestTenant, other_tenant: TestTenant
) -> None:
    device, pat = Device(running), await person(parts, tenant)
    token = await invited(running, parts, other_tenant, pat.email, "read_only")
    # A password that is sent along changes nothing: the link is not a reset.
    done = await device.post(ACCEPT, {"token": token, "password": ANOTHER})
    assert (done.status_code, done.json()) == (200, {"tenant": "globex"})
    assert (await device.login(pat.email, tenant="globex")).status_code == 200
    memberships = (await device.get(ME)).json()["memberships"]
    assert [(one["slug"], one["role"]) for one in memberships] == [("acme", "staff"), ("globex", "read_only")]
    # Whoever was sent away does not come back by an old or another invitation.
    await behind(
        parts,
        "update members set state = 'disabled' where account_id = :id and tenant_id = :tenant",
        id=pat.account_id,
        tenant=other_tenant.info.id,
    )
    token = await invited(running, parts, other_tenant, pat.email, "owner")
    await device.post(ACCEPT, {"token": token})
    assert (await Device(running).login(pat.email, tenant="globex")).status_code == 401


async def test_an_invitation_whose_role_is_gone_or_that_expired(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    device, pat = Device(running), await person(parts, None)
    token = await invited(running, parts, tenant, pat.email)
    await behind(
        parts,
        "update one_time_tokens set payload = payload || jsonb_build_object('role_id', cast(:role as text))",
        role=str(new_id()),
    )
    assert error(await device.post(ACCEPT, {"token": token})) == EXPIRED
    token = await invited(running, parts, tenant, pat.email)
    await behind(parts, "update one_time_tokens set expires_at = clock_timestamp()")
    assert error(await device.post(ACCEPT, {"token": token})) == EXPIRED
    assert await behind(parts, "select count(*) from members where account_id = :id", id=pat.account_id) == 0


async def test_ones_name_and_language(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    device, pat = Device(running), await person(parts, tenant)
    await device.login(pat.email)
    path = f"{AUTH}/profile"
    assert (await device.ask("PATCH", path, {"name": "Patricia", "language": "de"})).status_code == 204
    assert (await device.get(ME)).json()["name"] == "Patricia"
    assert (
        await behind(parts, "select name from members where account_id = :id", id=pat.account_id)
        == "Patricia"
    )
    assert await behind(parts, "select language from accounts where id = :id", id=pat.account_id) == "de"
    assert (await device.ask("PATCH", path, {"email": "other@people.example"})).status_code == 400
    assert await audited(parts, PLATFORM_TENANT, "account.changed") == 1


async def test_an_installation_that_takes_nobody_in(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGN_UP", "false")
    closed = create_app(parts)
    async with opened(closed):
        answer = await Device(closed).post(SIGN_UP, form("ada@fresh.example"))
        assert error(answer) == (403, "FORBIDDEN", {})


async def test_no_token_stands_in_the_database(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    pat = await person(parts, tenant)
    await Device(running).post(FORGOTTEN, {"email": pat.email})
    dump = await behind(
        parts,
        """
        select (select string_agg(to_jsonb(m)::text, ' ') from mails m)
               || (select string_agg(to_jsonb(o)::text, ' ') from one_time_tokens o)
        """,
    )
    token = await link(parts, "reset_password", pat.email)
    assert token.startswith("rst_")
    assert token not in dump
    assert pat.email not in dump
