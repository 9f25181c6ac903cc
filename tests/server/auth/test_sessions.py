"""Sessions over HTTP: cookies, refresh tokens, time-outs, and that what ended has ended everywhere within ten seconds."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
from litestar import Litestar

from server.app import create_app
from server.auth.tokens import new_opaque
from server.deps import Parts
from storage.repositories import accounts
from storage.tenancy import PLATFORM_TENANT
from tests.server.auth.people import (
    ANOTHER,
    AUTH,
    LOGIN,
    ME,
    PASSWORD,
    SESSIONS,
    THREADS,
    Device,
    Refusal,
    audited,
    behind,
    error,
    join,
    link,
    person,
    post,
)
from tests.support.edge import opened
from tests.support.world import TestTenant

ENDED: Refusal = (401, "UNAUTHENTICATED", {})
SID = "__Host-sid"


@dataclass
class Monotonic:
    """The clock by which processes remember whom they know; a test moves it on."""

    ahead: float = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    clock = Monotonic()
    monkeypatch.setattr("server.auth.principals.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
async def elsewhere(parts: Parts) -> AsyncIterator[Litestar]:
    """Another process with the application: it remembers by itself."""
    app = create_app(parts)
    async with opened(app):
        yield app


async def browser(app: Litestar, email: str, **more: str) -> Device:
    device = Device(app)
    answer = await device.login(email, kind="browser", **more)
    assert (answer.status_code, answer.json().get("access_token")) == (200, None)
    return device


async def program(app: Litestar, email: str) -> Device:
    device = Device(app)
    assert (await device.login(email)).status_code == 200
    return device


async def later(parts: Parts, **columns: str) -> None:
    """Move times of all sessions into the past: column and interval."""
    for column, interval in columns.items():
        await behind(parts, f"update sessions set {column} = {column} - cast(:age as interval)", age=interval)


# --- the cookie ---------------------------------------------------------------------------------------------------------


async def test_what_the_cookies_say(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    device, pat = Device(running), await person(parts, tenant)
    answer = await device.login(pat.email, kind="browser")
    said = {line.split("=")[0]: line.partition("; ")[2] for line in answer.headers.get_list("set-cookie")}
    assert said == {
        SID: "Path=/; Secure; HttpOnly; SameSite=Lax",
        "__Host-dev": "Max-Age=15552000; Path=/; Secure; HttpOnly; SameSite=Lax",
    }
    assert answer.json() == {"status": "signed_in", "tenant": "acme"}
    assert answer.headers["cache-control"] == "no-store"
    stored = await behind(
        parts, "select encode(token_hash, 'escape') from sessions where account_id = :id", id=pat.account_id
    )
    assert device.cookies[SID] not in stored
    assert (await device.get(THREADS)).status_code == 200
    out = await device.post(f"{AUTH}/logout")
    assert out.status_code == 204
    assert out.headers["set-cookie"] == f"{SID}=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"


async def test_a_cookie_that_somebody_else_chose_is_never_adopted(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    pat, planted = await person(parts, tenant), new_opaque("sid").clear
    victim = Device(running, cookies={SID: planted})
    await victim.login(pat.email, kind="browser")
    assert victim.cookies[SID] != planted
    assert (await victim.get(ME)).status_code == 200
    assert error(await Device(running, cookies={SID: planted}).get(ME)) == ENDED

    # Also where the planted cookie is a session that is open: the attacker's own, or the victim's of before.
    attacker = await browser(running, (await person(parts, tenant)).email)
    planted = attacker.cookies[SID]
    victim = Device(running, cookies={SID: planted})
    await victim.login(pat.email, kind="browser")
    assert (await victim.get(ME)).json()["email"] == pat.email
    assert error(await Device(running, cookies={SID: planted}).get(ME)) == ENDED


async def test_signing_in_again_ends_the_session_that_the_browser_had(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    pat = await person(parts, tenant)
    device = await browser(running, pat.email)
    old = Device(running, cookies=dict(device.cookies))
    await device.login(pat.email, kind="browser")
    assert error(await old.get(ME)) == ENDED
    assert len((await device.get(SESSIONS)).json()) == 1
    # A program's sign-in from there ends nobody's session.
    await Device(running, cookies=dict(device.cookies)).login(pat.email)
    assert (await device.get(ME)).status_code == 200


async def test_changes_by_cookie_come_from_our_own_pages(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    device = await browser(running, (await person(parts, tenant)).email)
    path, body = f"{AUTH}/profile", {"name": "Forged"}
    cases = [
        ({"x_requested_with": ""}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://test.evil.example"}, 403),
        (
            {"origin": "http://test", "sec_fetch_site": "cross-site"},
            204,
        ),  # the Origin is what counts where there is one
        ({"sec_fetch_site": "same-origin"}, 204),
        ({"sec_fetch_site": "none"}, 204),
        ({"origin": "http://test"}, 204),
        ({}, 204),
    ]
    for headers, status in cases:
        assert (await device.ask("PATCH", path, body, **headers)).status_code == status, headers
    # Reading needs no header, and a program, which shows its token by itself, never does.
    assert (await device.get(ME, x_requested_with="")).status_code == 200
    caller = await program(running, (await person(parts, tenant)).email)
    assert (await caller.ask("PATCH", path, body, x_requested_with="")).status_code == 204


async def test_a_form_of_another_site_cannot_send_a_body(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    """What a page can send without asking first: text/plain, or a form."""
    device = await browser(running, (await person(parts, tenant)).email)
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = await device.ask(
            "PATCH", f"{AUTH}/profile", {"name": "X"}, content_type=kind, x_requested_with=""
        )
        assert 400 <= answer.status_code < 500
    assert (await device.get(ME)).json()["name"] == "Pat"


async def test_new_rights_come_with_a_new_cookie_and_the_old_one_dies(
    running: Litestar, parts: Parts, tenant: TestTenant, memory: Monotonic
) -> None:
    pat = await person(parts, tenant)
    device = await browser(running, pat.email)
    old = Device(running, cookies=dict(device.cookies))
    assert (await device.get(THREADS)).status_code == 200
    await behind(
        parts,
        """
        update members set rights_version = rights_version + 1,
               role_id = (select id from roles r where r.tenant_id = members.tenant_id and key = 'prompt_engineer')
         where account_id = :id
        """,
        id=pat.account_id,
    )
    assert (await device.get(THREADS)).status_code == 200  # remembered for ten seconds
    memory.ahead += 10
    # The refusal itself must bring the new cookie, or the browser would be signed out by it.
    refused = await device.get(THREADS)
    assert error(refused) == (403, "FORBIDDEN", {"missing_scopes": ["inbox:read"]})
    assert device.cookies[SID] != old.cookies[SID]
    assert "knowledge:read" in (await device.get(ME)).json()["scopes"]
    # A request that was on its way with the old one still passes, without another new one.
    late = await old.get(ME)
    assert (late.status_code, late.headers.get("set-cookie")) == (200, None)
    memory.ahead += 10
    await later(parts, renewed_at="10 seconds")
    assert error(await old.get(ME)) == ENDED
    assert (await device.get(ME)).status_code == 200


async def test_another_business_brings_a_new_cookie_and_a_new_token(
    running: Litestar, parts: Parts, tenant: TestTenant, other_tenant: TestTenant
) -> None:
    pat = await person(parts, tenant)
    async with parts.database.identity_session() as session:
        await join(session, other_tenant, await accounts.by_id(session, pat.account_id), "read_only")
    device, caller = await browser(running, pat.email), await program(running, pat.email)
    before, before_caller = replace(device, cookies=dict(device.cookies)), replace(caller)
    missing = await device.post(f"{AUTH}/tenant", {"tenant": "nobody"})
    assert error(missing) == (404, "NOT_FOUND", {})

    assert (await device.post(f"{AUTH}/tenant", {"tenant": "globex"})).json() == {}
    me = (await device.get(ME)).json()
    assert (me["tenant_id"], "inbox:write" in me["scopes"]) == (str(other_tenant.info.id), False)
    assert device.cookies[SID] != before.cookies[SID]
    # The old cookie is the same session for ten seconds more, never the old business.
    assert (await before.get(ME)).json()["tenant_id"] == str(other_tenant.info.id)
    running.state.identity.principals._known.clear()  # as after ten seconds
    await later(parts, renewed_at="10 seconds")
    assert error(await before.get(ME)) == ENDED

    renewed = (await caller.post(f"{AUTH}/tenant", {"tenant": "globex"})).json()
    assert renewed["expires_in"] == 600
    caller.token = renewed["access_token"]
    assert (await caller.get(ME)).json()["tenant_id"] == str(other_tenant.info.id)
    assert error(await before_caller.get(ME)) == ENDED
    answer = (await caller.post(f"{AUTH}/refresh", {"refresh_token": caller.refresh})).json()
    caller.token = answer["access_token"]
    assert (await caller.get(ME)).json()["tenant_id"] == str(other_tenant.info.id)


# --- time-outs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "just", "ended"),
    [
        ("last_seen_at", "29 minutes 55 seconds", "30 minutes"),
        ("expires_at", "11 hours 59 minutes 55 seconds", "12 hours"),
    ],
)
async def test_a_browser_is_signed_out_by_time(
    running: Litestar, parts: Parts, tenant: TestTenant, column: str, just: str, ended: str
) -> None:
    email = (await person(parts, tenant)).email
    device = await browser(running, email)
    await later(parts, **{column: just})
    assert (await device.get(ME)).status_code == 200
    device = await browser(running, email)
    await later(parts, **{column: ended})
    assert error(await device.get(ME)) == ENDED
    # An idle session that was asked for is not woken up by that.
    running.state.identity.principals._known.clear()
    assert error(await device.get(ME)) == ENDED


async def test_use_keeps_a_browser_signed_in_but_not_for_ever(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    device = await browser(running, (await person(parts, tenant)).email)
    for _ in range(3):
        await later(parts, last_seen_at="20 minutes")
        running.state.identity.principals._known.clear()  # as after ten seconds
        assert (await device.get(ME)).status_code == 200
    await later(parts, expires_at="12 hours")
    running.state.identity.principals._known.clear()
    assert error(await device.get(ME)) == ENDED


async def test_a_programs_session_lasts_thirty_days_whatever_it_does(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    caller = await program(running, (await person(parts, tenant)).email)
    await later(parts, last_seen_at="2 days", expires_at="29 days 23 hours")
    refreshed = await caller.post(f"{AUTH}/refresh", {"refresh_token": caller.refresh})
    caller.kept(refreshed)
    assert (refreshed.status_code, (await caller.get(ME)).status_code) == (200, 200)
    await later(parts, expires_at="1 hour")
    late = await caller.post(f"{AUTH}/refresh", {"refresh_token": caller.refresh})
    assert error(late) == ENDED
    running.state.identity.principals._known.clear()
    assert error(await caller.get(ME)) == ENDED


# --- refresh tokens -------------------------------------------------------------------------------------------------------


async def test_a_refresh_token_that_comes_twice_ends_the_family(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    pat = await person(parts, tenant)
    caller, other = await program(running, pat.email), await program(running, pat.email)
    first = caller.refresh
    await post(parts)
    path = f"{AUTH}/refresh"
    answer = await caller.post(path, {"refresh_token": first})
    assert sorted(answer.json()) == ["access_token", "expires_in", "refresh_token", "token_type"]
    caller.kept(answer)
    second = caller.refresh
    assert second != first
    assert (await caller.get(ME)).status_code == 200

    # Seconds ago: two tabs, or a lost answer. No tokens, and nobody is signed out.
    recent = await caller.post(path, {"refresh_token": first})
    assert (recent.status_code, recent.json()["error"]["code"]) == (409, "CONFLICT")
    assert "token" not in recent.json()
    caller.kept(await caller.post(path, {"refresh_token": second}))
    assert (await caller.get(ME)).status_code == 200

    # Not the one before the newest, however recent.
    reused = await caller.post(path, {"refresh_token": first})
    assert error(reused) == ENDED
    assert error(await caller.get(ME)) == ENDED
    assert error(await caller.post(path, {"refresh_token": caller.refresh})) == ENDED
    assert [(mail.template, mail.recipient) for mail in await post(parts)] == [("refresh_reuse", pat.email)]
    assert await audited(parts, PLATFORM_TENANT, "session.refresh_reused") == 1
    assert (await other.get(ME)).status_code == 200  # another family


async def test_the_previous_refresh_token_after_ten_seconds_ends_the_family(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    caller = await program(running, (await person(parts, tenant)).email)
    first = caller.refresh
    caller.kept(await caller.post(f"{AUTH}/refresh", {"refresh_token": first}))
    await behind(parts, "update refresh_tokens set used_at = used_at - interval '10 seconds'")
    assert error(await caller.post(f"{AUTH}/refresh", {"refresh_token": first})) == ENDED
    assert error(await caller.get(ME)) == ENDED


async def test_what_is_no_refresh_token(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    caller = await program(running, (await person(parts, tenant)).email)
    assert caller.token is not None
    for wrong in (caller.token[:200], new_opaque("rfr").clear, "x", f"sid_{(caller.refresh or '')[4:]}"):
        assert error(await caller.post(f"{AUTH}/refresh", {"refresh_token": wrong})) == ENDED
    # A refresh token is no access token and no cookie.
    assert error(await Device(running, token=caller.refresh).get(ME)) == ENDED
    assert error(await Device(running, cookies={SID: caller.refresh or ""}).get(ME)) == ENDED


# --- what ended ------------------------------------------------------------------------------------------------------------


async def test_what_ends_in_one_process_ends_in_the_others_within_ten_seconds(
    running: Litestar, parts: Parts, tenant: TestTenant, elsewhere: Litestar, memory: Monotonic
) -> None:
    pat = await person(parts, tenant)
    for kind in ("browser", "program"):
        device = await browser(running, pat.email) if kind == "browser" else await program(running, pat.email)
        there = replace(device, app=elsewhere, cookies=dict(device.cookies))
        assert (await there.get(ME)).status_code == 200
        assert (await device.post(f"{AUTH}/logout")).status_code == 204
        assert error(await replace(there, app=running).get(ME)) == ENDED
        memory.ahead += 9.9
        assert (await there.get(ME)).status_code == 200  # it has not heard of it
        memory.ahead += 0.1
        assert error(await there.get(ME)) == ENDED


async def test_the_list_of_sessions_and_ending_them(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    pat, stranger = await person(parts, tenant), await person(parts, tenant)
    here = await browser(running, pat.email)
    phone, third = await program(running, pat.email), await program(running, pat.email)
    foreign = await program(running, stranger.email)
    listed = (await here.get(SESSIONS)).json()
    assert [(one["kind"], one["current"]) for one in listed] == [
        ("program", False),
        ("program", False),
        ("browser", True),
    ]
    assert {(one["device"], one["tenant"], one["place"]) for one in listed} == {
        ("Firefox 130 on Linux", "acme", "unknown")
    }
    foreign_id = (await foreign.get(SESSIONS)).json()[0]["id"]
    for missing in (foreign_id, str(pat.account_id)):
        assert error(await here.ask("DELETE", f"{SESSIONS}/{missing}")) == (404, "NOT_FOUND", {})
    assert (await foreign.get(ME)).status_code == 200

    phone_id = next(one["id"] for one in (await phone.get(SESSIONS)).json() if one["current"])
    assert (await here.ask("DELETE", f"{SESSIONS}/{phone_id}")).status_code == 204
    assert error(await phone.get(ME)) == ENDED
    assert error(await phone.post(f"{AUTH}/refresh", {"refresh_token": phone.refresh})) == ENDED
    assert (await third.get(ME)).status_code == 200
    assert (await here.ask("DELETE", SESSIONS)).status_code == 204
    assert error(await third.get(ME)) == ENDED
    assert len((await here.get(SESSIONS)).json()) == 1
    assert await audited(parts, PLATFORM_TENANT, "session.others_closed") == 1


async def test_a_new_password_ends_the_other_sessions(
    running: Litestar, parts: Parts, tenant: TestTenant, elsewhere: Litestar, memory: Monotonic
) -> None:
    pat = await person(parts, tenant)
    here, other = await browser(running, pat.email), await browser(running, pat.email)
    caller = await program(running, pat.email)
    there = replace(other, app=elsewhere, cookies=dict(other.cookies))
    assert (await there.get(ME)).status_code == 200
    await post(parts)
    path = f"{AUTH}/password"
    wrong = await here.post(path, {"current": ANOTHER, "new": ANOTHER})
    assert error(wrong) == (401, "UNAUTHENTICATED", {})
    weak = await here.post(path, {"current": PASSWORD, "new": "password1234"})
    assert weak.status_code == 422
    assert (await other.get(ME)).status_code == 200
    assert (await here.post(path, {"current": PASSWORD, "new": ANOTHER})).status_code == 204
    assert (await here.get(ME)).status_code == 200
    assert error(await other.get(ME)) == ENDED
    assert error(await caller.get(ME)) == ENDED
    memory.ahead += 10
    assert error(await there.get(ME)) == ENDED
    assert [mail.template for mail in await post(parts)] == ["password_changed"]
    assert error(await Device(running).login(pat.email)) == ENDED
    assert (await Device(running).login(pat.email, ANOTHER)).status_code == 200


async def test_a_reset_ends_all_sessions_and_spares_the_second_factor(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    pat = await person(parts, tenant)
    here, caller = await browser(running, pat.email), await program(running, pat.email)
    await here.set_up_totp()
    await post(parts)
    await here.post(f"{AUTH}/password/forgotten", {"email": pat.email})
    token = await link(parts, "reset_password", pat.email)
    weak = await here.post(f"{AUTH}/password/reset", {"token": token, "password": "short"})
    assert weak.status_code == 422
    done = {"token": token, "password": ANOTHER}
    assert (await here.post(f"{AUTH}/password/reset", done)).status_code == 204
    for device in (here, caller):
        assert error(await device.get(ME)) == ENDED
    again = await here.post(f"{AUTH}/password/reset", done)
    assert error(again) == (422, "VALIDATION_ERROR", {"field": "token"})
    fresh = Device(running, secret=here.secret)
    first = (await fresh.login(pat.email, ANOTHER)).json()
    assert first["status"] == "second_factor"
    assert (await fresh.second(first["challenge"], code=fresh.code())).status_code == 200


async def test_suspended_disabled_and_back(
    running: Litestar, parts: Parts, tenant: TestTenant, memory: Monotonic
) -> None:
    pat = await person(parts, tenant)
    callers = [await program(running, pat.email), await browser(running, pat.email)]
    blocks = [
        ("update tenants set state = '{}' where id = :id", tenant.info.id, "suspended", "suspended"),
        ("update tenants set state = '{}' where id = :id", tenant.info.id, "pending", "pending"),
        ("update members set state = '{}' where account_id = :id", pat.account_id, "disabled", "not_member"),
    ]
    for statement, row, state, reason in blocks:
        await behind(parts, statement.format(state), id=row)
        memory.ahead += 10
        for caller in callers:
            assert error(await caller.get(THREADS)) == (403, "FORBIDDEN", {"reason": reason})
            assert (await caller.get(ME)).json()["blocked"] == reason
        await behind(parts, statement.format("active"), id=row)
        memory.ahead += 10
        for caller in callers:
            assert (await caller.get(THREADS)).status_code == 200
    await behind(parts, "update accounts set state = 'disabled' where id = :id", id=pat.account_id)
    memory.ahead += 10
    for caller in callers:
        assert error(await caller.get(ME)) == ENDED
    assert error(await callers[0].post(f"{AUTH}/refresh", {"refresh_token": callers[0].refresh})) == ENDED


async def test_a_business_that_wants_a_second_factor(
    running: Litestar, parts: Parts, tenant: TestTenant, memory: Monotonic
) -> None:
    caller = await program(running, (await person(parts, tenant)).email)
    await behind(
        parts,
        "update tenants set settings = settings || '{\"require_second_factor\": true}' where id = :id",
        id=tenant.info.id,
    )
    memory.ahead += 10
    assert error(await caller.get(THREADS)) == (403, "FORBIDDEN", {"reason": "second_factor"})
    await caller.set_up_totp()
    assert (await caller.get(THREADS)).status_code == 200


async def test_only_one_of_two_requests_gets_the_new_cookie(
    running: Litestar, parts: Parts, tenant: TestTenant, elsewhere: Litestar
) -> None:
    """Two processes notice new rights at the same time; the browser must end up with the cookie that is good."""
    pat = await person(parts, tenant)
    device = await browser(running, pat.email)
    await behind(parts, "update members set rights_version = 7 where account_id = :id", id=pat.account_id)
    there = replace(device, app=elsewhere, cookies=dict(device.cookies))
    found = running.state.identity.principals
    other = elsewhere.state.identity.principals
    shown = device.cookies[SID]
    one, two = await asyncio.gather(found.by_cookie(shown, None), other.by_cookie(shown, None))
    given = [one.new_cookie or two.new_cookie, one.new_cookie and two.new_cookie]
    assert given[0] is not None
    assert given[1] is None
    assert (await there.get(ME)).status_code == 200
    assert (await Device(running, cookies={SID: given[0]}).get(ME)).status_code == 200


async def test_both_ways_at_once(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    """The header counts where there is one; a bad one is not made good by a cookie."""
    pat, other = await person(parts, tenant), await person(parts, tenant)
    device, caller = await browser(running, pat.email), await program(running, other.email)
    assert (await device.get(ME, authorization=f"Bearer {caller.token}")).json()["email"] == other.email
    assert error(await device.get(ME, authorization="Bearer nonsense")) == ENDED
    assert (await device.post(LOGIN, {"email": pat.email, "password": PASSWORD})).status_code == 200
