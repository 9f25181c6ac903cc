"""Second factors over HTTP: setting them up, proving with them before dangerous acts, removing them."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar

from server.auth.passwords import Passwords
from server.deps import Parts
from storage.tenancy import PLATFORM_TENANT
from tests.server.auth.people import (
    ANOTHER,
    AUTH,
    ME,
    PASSWORD,
    Device,
    Refusal,
    audited,
    behind,
    error,
    person,
    post,
)
from tests.support.authenticator import Authenticator
from tests.support.world import TestTenant

WRONG: Refusal = (401, "UNAUTHENTICATED", {})
STEP_UP = (403, "FORBIDDEN", {"reason": "step_up"})
TOTP, PASSKEYS, CODES, PROVE = (
    f"{AUTH}/{path}" for path in ("totp", "passkeys", "recovery-codes", "step-up")
)
SID = "__Host-sid"


@pytest.fixture
async def device(running: Litestar, parts: Parts, tenant: TestTenant) -> Device:
    """A program in which somebody has just signed in by password."""
    made = Device(running)
    await made.login((await person(parts, tenant)).email)
    await post(parts)
    return made


async def ten_minutes_later(app: Litestar, parts: Parts) -> None:
    """The last proof is too old for a dangerous act."""
    await behind(parts, "update sessions set authenticated_at = authenticated_at - interval '10 minutes'")
    app.state.identity.principals._known.clear()


async def add_passkey(device: Device, key: Authenticator) -> httpx.Response:
    begun = (await device.post(f"{PASSKEYS}/options")).json()
    return await device.post(
        PASSKEYS,
        {"challenge": begun["challenge"], "credential": key.create(begun["options"]), "name": "Key"},
    )


async def test_setting_up_an_app_for_codes(running: Litestar, device: Device, parts: Parts) -> None:
    assert (await device.post(f"{TOTP}/confirm", {"code": "123456"})).status_code == 409
    begun = (await device.post(TOTP)).json()
    assert begun["uri"].startswith("otpauth://totp/AI%20Secretary:")
    assert f"secret={begun['secret']}" in begun["uri"]
    # It counts only when a code of it was shown.
    assert (await device.get(ME)).json()["second_factor"] is False
    again = (await device.post(TOTP)).json()
    assert again["secret"] != begun["secret"]
    device.secret = begun["secret"]
    wrong = await device.post(f"{TOTP}/confirm", {"code": device.code()})
    assert error(wrong) == (422, "VALIDATION_ERROR", {"field": "code"})
    device.secret = again["secret"]
    code = device.code()
    assert (await device.post(f"{TOTP}/confirm", {"code": code})).status_code == 200
    assert (await device.post(f"{TOTP}/confirm", {"code": device.code(1)})).status_code == 409
    assert (await device.post(TOTP)).status_code == 409
    # The code of the set-up is used up; the session has shown it, so dangerous acts are open.
    assert error(await device.post(PROVE, {"code": code})) == WRONG
    assert (await device.get(ME)).json()["amr"] == ["otp", "pwd"]
    assert (await device.post(CODES)).status_code == 200
    assert [(mail.template, mail.values["change"]) for mail in await post(parts)] == [
        ("mfa_changed", "an app for codes was added"),
        ("mfa_changed", "new recovery codes were made"),
    ]
    assert await audited(parts, PLATFORM_TENANT, "totp.added") == 1
    sealed = await behind(
        parts, "select encode(totp_secret, 'escape') from accounts where totp_secret is not null"
    )
    assert device.secret not in sealed


async def test_nobody_adds_a_factor_to_a_session_that_was_left_open(
    running: Litestar, device: Device, parts: Parts
) -> None:
    """Else whoever finds an open browser would prove with a device of their own that they are the owner."""
    await ten_minutes_later(running, parts)
    for path in (TOTP, f"{PASSKEYS}/options"):
        assert error(await device.post(path)) == STEP_UP
    assert error(await device.post(PROVE, {"password": ANOTHER})) == WRONG
    assert (await device.post(PROVE, {"password": PASSWORD})).status_code == 200
    await device.set_up_totp()
    await ten_minutes_later(running, parts)
    assert error(await device.post(f"{PASSKEYS}/options")) == STEP_UP


async def test_dangerous_acts_want_all_that_one_has(running: Litestar, device: Device, parts: Parts) -> None:
    codes = await device.set_up_totp()
    await ten_minutes_later(running, parts)
    for method, path in (("DELETE", TOTP), ("POST", CODES), ("DELETE", f"{PASSKEYS}/{uuid4()}")):
        assert error(await device.ask(method, path)) == STEP_UP
    start = (await device.get(PROVE)).json()
    assert start == {"factors": ["totp", "recovery_code"], "challenge": None, "passkey_options": None}
    # The password alone proves nothing any more.
    nothing: list[dict[str, Any]] = [
        {"password": PASSWORD},
        {"code": "000000"},
        {"recovery_code": "x"},
        {"passkey": {}},
    ]
    for proof in nothing:
        assert error(await device.post(PROVE, proof)) == WRONG
    code = device.code()
    answer = await device.post(PROVE, {"code": code})
    assert answer.status_code == 200
    assert answer.json()["expires_in"] == 600
    device.token = answer.json()["access_token"]
    renewed = await device.post(CODES)
    assert renewed.status_code == 200
    assert not set(renewed.json()["recovery_codes"]) & set(codes)
    await ten_minutes_later(running, parts)
    assert error(await device.post(PROVE, {"code": code})) == WRONG
    assert error(await device.post(CODES)) == STEP_UP


async def test_recovery_codes_prove_once_and_old_ones_not(
    running: Litestar, device: Device, parts: Parts
) -> None:
    old = await device.set_up_totp()
    fresh = (await device.post(CODES)).json()["recovery_codes"]
    assert error(await device.post(PROVE, {"recovery_code": old[0]})) == WRONG
    assert (await device.post(PROVE, {"recovery_code": fresh[0]})).status_code == 200
    assert error(await device.post(PROVE, {"recovery_code": fresh[0]})) == WRONG


async def test_a_session_by_password_alone_is_not_fresh_once_there_is_a_factor(
    running: Litestar, device: Device, parts: Parts, tenant: TestTenant
) -> None:
    """Two sessions by password; the one in which the factor was added has shown it, the other has not."""
    email = (await device.get(ME)).json()["email"]
    other = Device(running)
    await other.login(email)
    assert (await other.post(TOTP)).status_code == 200
    await device.set_up_totp()
    assert error(await other.ask("DELETE", TOTP)) == STEP_UP


async def test_step_up_gives_a_browser_a_new_cookie(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    browser = Device(running)
    await browser.login((await person(parts, tenant)).email, kind="browser")
    old = replace(browser, cookies=dict(browser.cookies))
    assert (await browser.post(PROVE, {"password": PASSWORD})).json() == {}
    assert browser.cookies[SID] != old.cookies[SID]
    assert (await old.get(ME)).status_code == 200
    await behind(parts, "update sessions set renewed_at = renewed_at - interval '10 seconds'")
    running.state.identity.principals._known.clear()  # as after ten seconds
    assert error(await old.get(ME)) == WRONG
    assert (await browser.get(ME)).status_code == 200
    assert await audited(parts, PLATFORM_TENANT, "session.stepped_up") == 1


async def test_guessing_at_the_step_up_is_slowed_down(still: Litestar, device: Device) -> None:
    await device.set_up_totp()
    statuses = [
        (await replace(device, ip=Device(still).ip).post(PROVE, {"code": f"{number:06}"})).status_code
        for number in range(6)
    ]
    assert statuses == [401] * 5 + [429]


async def test_a_busy_server_counts_no_step_up(running: Litestar, device: Device, parts: Parts) -> None:
    right = running.state.identity
    none = Passwords(waiting=0, per_source=0)
    running.state.identity = replace(right, passwords=none)
    for _ in range(6):
        assert (await device.post(PROVE, {"password": PASSWORD})).status_code == 503
    change = await device.post(f"{AUTH}/password", {"current": PASSWORD, "new": ANOTHER})
    assert change.status_code == 503
    running.state.identity = right
    none.close()
    assert (await device.post(PROVE, {"password": PASSWORD})).status_code == 200


async def test_passkeys_are_added_listed_used_and_removed(
    running: Litestar, device: Device, parts: Parts
) -> None:
    key, second = Authenticator(origin="http://test"), Authenticator(origin="http://test")
    made = await add_passkey(device, key)
    assert made.status_code == 201
    assert len(made.json()["recovery_codes"]) == 10
    more = await add_passkey(device, second)
    assert more.json()["recovery_codes"] == []
    twice = await add_passkey(device, key)
    assert twice.status_code == 409
    listed = (await device.get(PASSKEYS)).json()
    assert [(one["id"], one["name"], one["last_used_at"]) for one in listed] == [
        (made.json()["id"], "Key", None),
        (more.json()["id"], "Key", None),
    ]

    await ten_minutes_later(running, parts)
    start = (await device.get(PROVE)).json()
    assert start["factors"] == ["passkey", "recovery_code"]
    answer = key.get(start["passkey_options"])
    proof = {"passkey": answer, "challenge": start["challenge"]}
    assert error(await device.post(PROVE, {"passkey": answer})) == WRONG
    proved = await device.post(PROVE, proof)
    assert proved.status_code == 200
    assert error(await device.post(PROVE, proof)) == WRONG  # the challenge is good once
    device.token = proved.json()["access_token"]
    assert (await device.get(PASSKEYS)).json()[0]["last_used_at"] is not None

    assert (await device.ask("DELETE", f"{PASSKEYS}/{uuid4()}")).status_code == 404
    for one in listed:
        assert (await device.ask("DELETE", f"{PASSKEYS}/{one['id']}")).status_code == 204
    assert (await device.get(ME)).json()["second_factor"] is False
    # With the last factor go the codes that stood in for it.
    assert await behind(parts, "select count(*) from recovery_codes") == 0


async def test_a_passkey_of_somebody_else_is_nobodys(
    running: Litestar, device: Device, parts: Parts, tenant: TestTenant
) -> None:
    key, other = Authenticator(origin="http://test"), Device(running)
    await other.login((await person(parts, tenant)).email)
    made = (await add_passkey(device, key)).json()
    await add_passkey(other, Authenticator(origin="http://test"))
    assert error(await other.ask("DELETE", f"{PASSKEYS}/{made['id']}")) == (404, "NOT_FOUND", {})
    # A ceremony that one person began is nothing for another.
    begun = (await device.post(f"{PASSKEYS}/options")).json()
    stolen = await other.post(
        PASSKEYS,
        {
            "challenge": begun["challenge"],
            "credential": Authenticator("http://test").create(begun["options"]),
        },
    )
    assert error(stolen) == (422, "VALIDATION_ERROR", {"field": "challenge"})
    start = (await device.get(PROVE)).json()
    proof = {"passkey": key.get(start["passkey_options"]), "challenge": start["challenge"]}
    assert error(await other.post(PROVE, proof)) == WRONG


async def test_removing_the_app_for_codes(running: Litestar, device: Device, parts: Parts) -> None:
    email = (await device.get(ME)).json()["email"]
    await device.set_up_totp()
    assert (await device.ask("DELETE", TOTP)).status_code == 204
    assert await behind(parts, "select count(*) from recovery_codes") == 0
    assert await behind(parts, "select count(*) from accounts where totp_secret is not null") == 0
    assert (await device.post(CODES)).status_code == 409
    assert (await Device(running).login(email)).json()["status"] == "signed_in"
    assert [mail.values["change"] for mail in await post(parts) if mail.template == "mfa_changed"] == [
        "an app for codes was added",
        "the app for codes was removed",
    ]
