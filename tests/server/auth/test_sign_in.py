"""Signing in over HTTP: both steps, what strangers can learn from the answers, and what slows guessing down."""

from dataclasses import replace

from litestar import Litestar

from server.auth.passwords import Passwords
from server.deps import Parts
from storage.tenancy import PLATFORM_TENANT
from tests.server.auth.people import (
    ANOTHER,
    AUTH,
    LOGIN,
    ME,
    PASSWORD,
    THREADS,
    Device,
    Refusal,
    audited,
    behind,
    error,
    link,
    person,
    post,
    shape,
)
from tests.support.authenticator import Authenticator
from tests.support.world import TestTenant

WRONG: Refusal = (401, "UNAUTHENTICATED", {})


async def test_from_opening_an_account_to_working_in_it(running: Litestar, parts: Parts) -> None:
    device, email = Device(running), "ada@fresh.example"
    form = {"email": email, "password": PASSWORD, "name": "Ada", "business": "Räder & Co", "language": "de"}
    assert (await device.post(f"{AUTH}/sign-up", form)).status_code == 202
    refused = await device.login(email)
    assert error(refused) == (403, "FORBIDDEN", {"reason": "email"})

    token = await link(parts, "verify_email", email)
    assert (await device.post(f"{AUTH}/verify-email", {"token": token})).status_code == 204
    again = await device.post(f"{AUTH}/verify-email", {"token": token})
    assert error(again) == (422, "VALIDATION_ERROR", {"field": "token"})

    answer = (await device.login(email)).json()
    assert (answer["status"], answer["tenant"], answer["token_type"], answer["expires_in"]) == (
        "signed_in",
        "rader-co",
        "Bearer",
        600,
    )
    me = (await device.get(ME)).json()
    assert (me["blocked"], me["scopes"], me["second_factor"], me["amr"]) == (
        "second_factor",
        [],
        False,
        ["pwd"],
    )
    assert [(one["slug"], one["role"], one["state"]) for one in me["memberships"]] == [
        ("rader-co", "owner", "active")
    ]
    assert error(await device.get(THREADS)) == (403, "FORBIDDEN", {"reason": "second_factor"})

    codes = await device.set_up_totp()
    assert len(set(codes)) == 10
    assert (await device.get(THREADS)).status_code == 200

    # Anew, with the second factor from the beginning.
    first = (await device.login(email)).json()
    assert (first["status"], first["factors"]) == ("second_factor", ["totp", "recovery_code"])
    assert "access_token" not in first
    done = await device.second(first["challenge"], code=device.code())
    assert done.status_code == 200
    me = (await device.get(ME)).json()
    assert (me["blocked"], me["amr"], me["second_factor"]) == (None, ["pwd", "otp"], True)
    assert (await device.get(THREADS)).status_code == 200
    tenant_id = me["tenant_id"]
    assert await audited(parts, tenant_id, "account.created") == 1
    assert await audited(parts, tenant_id, "account.email_verified") == 1
    assert await audited(parts, tenant_id, "session.opened") == 2


async def test_a_code_is_good_once(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    device, pat = Device(running), await person(parts, tenant)
    await device.login(pat.email)
    await device.set_up_totp()
    code = device.code()
    challenge = (await device.login(pat.email)).json()["challenge"]
    assert (await device.second(challenge, code=code)).status_code == 200
    # The challenge is used up, and the code is, also with a fresh challenge.
    assert error(await device.second(challenge, code=device.code(1))) == WRONG
    fresh = (await device.login(pat.email)).json()["challenge"]
    assert error(await device.second(fresh, code=code)) == WRONG
    assert error(await device.second(fresh, code=device.code(-1))) == WRONG
    assert (await device.second(fresh, code=device.code(1))).status_code == 200


async def test_a_recovery_code_is_good_once(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    device, pat = Device(running), await person(parts, tenant)
    await device.login(pat.email)
    codes = await device.set_up_totp()
    challenge = (await device.login(pat.email)).json()["challenge"]
    typed = codes[3].lower().replace("-", " ")
    assert (await device.second(challenge, recovery_code=typed)).status_code == 200
    assert (await device.get(ME)).json()["amr"] == ["pwd", "rec"]
    challenge = (await device.login(pat.email)).json()["challenge"]
    assert error(await device.second(challenge, recovery_code=codes[3])) == WRONG
    assert (await device.second(challenge, recovery_code=codes[4])).status_code == 200


async def test_signing_in_with_a_passkey(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    device, pat, key = Device(running), await person(parts, tenant), Authenticator(origin="http://test")
    await device.login(pat.email)
    begun = (await device.post(f"{AUTH}/passkeys/options")).json()
    made = await device.post(
        f"{AUTH}/passkeys", {"challenge": begun["challenge"], "credential": key.create(begun["options"])}
    )
    assert made.status_code == 201
    assert len(made.json()["recovery_codes"]) == 10

    first = (await device.login(pat.email)).json()
    assert first["factors"] == ["passkey", "recovery_code"]
    stranger = Authenticator(origin="http://test")
    assert (
        error(await device.second(first["challenge"], passkey=stranger.get(first["passkey_options"])))
        == WRONG
    )
    assert error(await device.second(first["challenge"], passkey={"id": 7})) == WRONG
    answer = key.get(first["passkey_options"])
    assert (await device.second(first["challenge"], passkey=answer)).status_code == 200
    assert (await device.get(ME)).json()["amr"] == ["pwd", "hwk"]
    # The same answer to another challenge.
    second = (await device.login(pat.email)).json()
    assert error(await device.second(second["challenge"], passkey=answer)) == WRONG


async def test_exactly_one_proof_is_taken(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    device = Device(running)
    for proof in ({}, {"code": "123456", "recovery_code": "x"}):
        answer = await device.second("mfa_x", **proof)
        assert error(answer) == (422, "VALIDATION_ERROR", {"field": "code"})
    # The password is no second factor.
    assert (await device.second("mfa_x", password=PASSWORD)).status_code == 400


async def test_a_challenge_ends_after_five_tries_and_five_minutes(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    device, pat = Device(running), await person(parts, tenant)
    await device.login(pat.email)
    await device.set_up_totp()
    challenge = (await device.login(pat.email)).json()["challenge"]
    await behind(parts, "update one_time_tokens set tries = 5 where purpose = 'second_factor'")
    assert error(await device.second(challenge, code=device.code())) == WRONG
    challenge = (await device.login(pat.email)).json()["challenge"]
    await behind(
        parts, "update one_time_tokens set expires_at = clock_timestamp() where purpose = 'second_factor'"
    )
    assert error(await device.second(challenge, code=device.code())) == WRONG
    challenge = (await device.login(pat.email)).json()["challenge"]
    await behind(parts, "update one_time_tokens set tries = 4 where purpose = 'second_factor'")
    assert (await device.second(challenge, code=device.code())).status_code == 200


async def test_guessing_codes_is_slowed_down_over_all_challenges(
    still: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    device, pat = Device(still), await person(parts, tenant)
    await device.login(pat.email)
    await device.set_up_totp()
    statuses: list[int] = []
    for number in range(6):
        # Another address each time: what is counted is the account.
        guesser = replace(Device(still), secret=device.secret)
        challenge = (await guesser.login(pat.email)).json()["challenge"]
        wrong = f"{(int(device.code()) + 7 + number) % 1_000_000:06}"
        statuses.append((await guesser.second(challenge, code=wrong)).status_code)
    assert statuses == [401] * 5 + [429]
    challenge = (await device.login(pat.email)).json()["challenge"]
    late = await device.second(challenge, code=device.code())
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) >= 1


async def test_known_and_unknown_people_get_the_same_answers(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    pat = await person(parts, tenant)
    unverified = await person(parts, None, verified=False)
    disabled = await person(parts, tenant)
    await behind(parts, "update accounts set state = 'disabled' where id = :id", id=disabled.account_id)
    more: dict[str, dict[str, str]] = {
        LOGIN: {"password": ANOTHER},
        f"{AUTH}/password/forgotten": {},
        f"{AUTH}/sign-up": {"password": ANOTHER, "name": "Somebody", "business": "Any"},
    }
    expected = {LOGIN: 401, f"{AUTH}/password/forgotten": 202, f"{AUTH}/sign-up": 202}
    for path, rest in more.items():
        shapes = [
            shape(await Device(running).post(path, {"email": email, **rest}))
            for email in (pat.email, "nobody@nowhere.example", unverified.email, disabled.email)
        ]
        assert shapes[0][0] == expected[path]
        assert shapes[1:] == shapes[:1] * 3, path
    # A right password of a disabled account is a wrong one, too.
    assert error(await Device(running).login(disabled.email)) == WRONG
    told = sorted((mail.template, mail.recipient) for mail in await post(parts))
    assert told == sorted(
        [
            ("reset_password", pat.email),
            ("reset_password", pat.email),
            ("reset_password", unverified.email),
            ("reset_password", unverified.email),
            ("verify_email", "nobody@nowhere.example"),
        ]
    )


async def test_that_the_address_is_not_verified_is_told_to_its_owner_only(
    running: Litestar, parts: Parts
) -> None:
    pat = await person(parts, None, verified=False)
    assert error(await Device(running).login(pat.email, ANOTHER)) == WRONG
    assert error(await Device(running).login(pat.email)) == (403, "FORBIDDEN", {"reason": "email"})


async def test_which_business_is_opened(
    running: Litestar, parts: Parts, tenant: TestTenant, other_tenant: TestTenant
) -> None:
    device, pat = Device(running), await person(parts, tenant)
    assert error(await device.login(pat.email, tenant="globex")) == WRONG
    assert error(await device.login(pat.email, tenant="no-such-business")) == WRONG
    assert (await device.login(pat.email, tenant="acme")).json()["tenant"] == "acme"
    assert (await device.login(pat.email)).json()["tenant"] == "acme"
    await behind(parts, "update members set state = 'disabled' where account_id = :id", id=pat.account_id)
    assert error(await Device(running).login(pat.email, tenant="acme")) == WRONG


async def test_somebody_who_works_nowhere_can_sign_in_and_do_nothing(running: Litestar, parts: Parts) -> None:
    pat = await person(parts, None)
    for kind in ("program", "browser"):
        device = Device(running)
        assert "tenant" not in (await device.login(pat.email, kind=kind)).json()
        me = (await device.get(ME)).json()
        assert (me["blocked"], me["scopes"], me["tenant_id"]) == ("no_tenant", [], str(PLATFORM_TENANT))
        assert error(await device.get(THREADS)) == (403, "FORBIDDEN", {"reason": "no_tenant"})


async def test_a_lock_out_ends_at_the_owners_own_device(
    still: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    owner, pat = Device(still), await person(parts, tenant)
    assert (await owner.login(pat.email, kind="browser")).status_code == 200
    for _ in range(5):
        assert (await Device(still).login(pat.email, ANOTHER)).status_code == 401
    # From anywhere, also with the right password, and the same for somebody who does not exist.
    locked = await Device(still).login(pat.email)
    assert (locked.status_code, locked.json()["error"]["code"]) == (429, "RATE_LIMITED")
    assert int(locked.headers["retry-after"]) >= 1
    assert (await owner.login(pat.email, kind="browser")).status_code == 200
    for _ in range(5):
        await Device(still).login("nobody.at.all@acme.example", ANOTHER)
    unknown = await Device(still).login("nobody.at.all@acme.example", ANOTHER)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (429, "RATE_LIMITED")


async def test_an_address_that_tries_too_much_is_stopped(running: Litestar, tenant: TestTenant) -> None:
    device = Device(running)
    statuses: list[int] = []
    while (
        429 not in statuses and len(statuses) < 60
    ):  # some more than twenty pass while a busy machine compares those
        statuses.append((await device.login(f"nobody{len(statuses)}@acme.example", ANOTHER)).status_code)
    assert statuses[:20] == [401] * 20
    assert statuses[-1] == 429
    assert (await Device(running).login("nobody@acme.example", ANOTHER)).status_code == 401


async def test_too_many_at_a_time_are_told_to_come_again_and_not_counted(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    pat, device = await person(parts, tenant), Device(running)
    right = running.state.identity
    none = Passwords(waiting=0, per_source=0)  # real threads, and no room before them
    running.state.identity = replace(right, passwords=none)
    for _ in range(7):  # more than would lock the account
        answer = await device.login(pat.email)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "RATE_LIMITED")
        assert answer.headers["retry-after"] == "2"
    running.state.identity = right
    none.close()
    assert (await device.login(pat.email)).status_code == 200


async def test_only_a_new_device_is_told_by_mail(running: Litestar, parts: Parts, tenant: TestTenant) -> None:
    pat = await person(parts, tenant)
    await Device(running).login(pat.email)
    await Device(running).login(pat.email)
    assert [(mail.template, mail.values["device"]) for mail in await post(parts)] == [
        ("new_sign_in", "Firefox 130 on Linux")
    ]
    await Device(running, agent="curl/8.5.0").login(pat.email)
    assert [mail.template for mail in await post(parts)] == ["new_sign_in"]


async def test_a_challenge_ends_with_the_password_that_it_stands_for(
    running: Litestar, parts: Parts, tenant: TestTenant
) -> None:
    device, pat = Device(running), await person(parts, tenant)
    await device.login(pat.email)
    await device.set_up_totp()
    thief = Device(running, secret=device.secret)
    challenge = (await thief.login(pat.email)).json()["challenge"]
    changed = await device.post(f"{AUTH}/password", {"current": PASSWORD, "new": ANOTHER})
    assert changed.status_code == 204
    assert error(await thief.second(challenge, code=device.code())) == WRONG


async def test_unknown_fields_are_refused(running: Litestar, tenant: TestTenant) -> None:
    answer = await Device(running).login(tenant.staff_email, scopes=["members:write"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
