"""Single sign-on over the real wire: the product, a browser, and a provider that a test makes lie."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
from litestar import Litestar

from server.auth import sso
from server.deps import Parts
from storage.errors import AppError
from storage.sql import text
from tests.sandbox.oidc import Fault, OidcSandbox
from tests.sandbox.server import serve
from tests.server.auth.people import AUTH, LOGIN, ME, Device, audited, behind, error, person
from tests.support.staff import Colleague, colleague, long_ago, operator_inside
from tests.support.world import TestTenant

CONNECTIONS = "/api/v1/tenants/current/sso"
SSO = f"{AUTH}/sso"
THREADS = "/api/v1/inbox/threads"
COOKIE, SESSION = "__Host-sso", "__Host-sid"


@pytest.fixture
def provider() -> OidcSandbox:
    return OidcSandbox()


@pytest.fixture
def issuer(provider: OidcSandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The provider's address, which the operator lets us ask although it is on this machine."""
    with serve(provider) as address:
        monkeypatch.setenv("SSO_PRIVATE_PROVIDERS", urlsplit(address).netloc)
        yield address


@pytest.fixture
async def owner(app: Litestar, client: httpx.AsyncClient, parts: Parts, tenant: TestTenant) -> Colleague:
    return await colleague(app, parts, tenant)


@pytest.fixture
async def connection(owner: Colleague, issuer: str, provider: OidcSandbox) -> str:
    """The address of acme's connection."""
    made = await owner.post(
        CONNECTIONS,
        {"issuer": issuer, "client_id": provider.client_id, "client_secret": provider.client_secret},
    )
    assert made.status_code == 201, made.text
    return f"{CONNECTIONS}/{made.json()['id']}"


@pytest.fixture
async def staff(app: Litestar, parts: Parts, tenant: TestTenant, connection: str) -> Colleague:
    """A member who has linked themselves with the provider's only person."""
    device = await colleague(app, parts, tenant, "staff")
    linked = await device.get(await at_provider(await linking(device)))
    assert (linked.status_code, linked.json()) == (200, {"status": "linked"})
    return device


async def linking(device: Device) -> str:
    begun = await device.post(f"{SSO}/link", {})
    assert begun.status_code == 200, begun.text
    return str(begun.json()["url"])


async def away(device: Device, query: str = "") -> str:
    """Where a browser is sent that wants to sign in."""
    begun = await device.get(f"{SSO}/acme{query}")
    assert begun.status_code == 302, begun.text
    return begun.headers["location"]


async def at_provider(url: str) -> str:
    """What the provider sends the browser back to, without our host."""
    async with httpx.AsyncClient() as browser:
        answer = await browser.get(url)
    assert answer.status_code == 302, answer.text
    back = urlsplit(answer.headers["location"])
    assert f"{back.scheme}://{back.netloc}{back.path}" == "http://test/api/v1/auth/sso/callback"
    return f"{back.path}?{back.query}"


async def entered(device: Device, **headers: str) -> httpx.Response:
    """All the way."""
    return await device.get(await at_provider(await away(device)), **headers)


async def sessions_and_links(parts: Parts) -> tuple[int, int, int]:
    """What a refused sign-in must not have changed."""
    return (
        await behind(parts, "select count(*) from sessions"),
        await behind(parts, "select count(*) from sso_identities"),
        await behind(parts, "select count(*) from accounts"),
    )


async def test_the_way_in_for_somebody_who_is_linked(
    app: Litestar, staff: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    device = Device(app)
    begun = await device.get(f"{SSO}/acme")
    sent = parse_qs(urlsplit(begun.headers["location"]).query)
    assert (sent["code_challenge_method"], sent["response_type"]) == (["S256"], ["code"])
    assert sent["redirect_uri"] == ["http://test/api/v1/auth/sso/callback"]
    (cookie,) = begun.headers.get_list("set-cookie")
    assert cookie.startswith(f"{COOKIE}=sso_")
    assert cookie.endswith("; Max-Age=600; Path=/; Secure; HttpOnly; SameSite=Lax")

    done = await device.get(await at_provider(begun.headers["location"]))
    assert (done.status_code, done.json()) == (200, {"status": "signed_in", "tenant": "acme"})
    assert set(device.cookies) == {SESSION}  # the other one is gone, and no proof of a password was given
    me = (await device.get(ME)).json()
    assert (me["email"], me["amr"], me["tenant_id"]) == (staff.email, ["fed", "mfa"], str(tenant.info.id))
    assert (await device.get(THREADS)).status_code == 200
    page = await entered(device, accept="text/html,*/*")
    assert (page.status_code, page.headers["location"]) == (302, "/account")
    assert [
        await audited(parts, tenant.info.id, f"sso.{act}") for act in ("linked", "accepted", "refused")
    ] == [
        1,
        2,
        0,
    ]


async def test_a_sealed_secret_that_nobody_is_shown(
    owner: Colleague, connection: str, issuer: str, provider: OidcSandbox, parts: Parts
) -> None:
    listed = await owner.get(CONNECTIONS)
    assert listed.json() == [
        {
            "id": connection.rpartition("/")[2],
            "issuer": issuer,
            "client_id": "secretary",
            "enabled": True,
            "created_at": listed.json()[0]["created_at"],
            "redirect_uri": "http://test/api/v1/auth/sso/callback",
        }
    ]
    stored = await behind(parts, "select client_secret from sso_connections")
    assert provider.client_secret.encode() not in bytes(stored)
    changed = await owner.patch(connection, {"client_secret": "another"})
    assert changed.json() == listed.json()[0]
    assert bytes(await behind(parts, "select client_secret from sso_connections")) != bytes(stored)


@pytest.mark.parametrize(
    "fault",
    ["alg_none", "hs256_with_public_key", "wrong_issuer", "wrong_audience", "wrong_nonce", "no_nonce", "expired",
     "swapped_key", "wrong_response_issuer", "redirect"],
)  # fmt: skip
async def test_a_provider_that_lies_lets_nobody_in(
    app: Litestar, staff: Colleague, parts: Parts, tenant: TestTenant, provider: OidcSandbox, fault: Fault
) -> None:
    device = Device(app)
    url = await away(device)
    before = await sessions_and_links(parts)
    provider.fault = fault
    refused = await device.get(await at_provider(url))
    assert error(refused)[:2] == (401, "UNAUTHENTICATED")
    if fault == "redirect":  # not because of where it led
        assert error(refused)[2] == {"reason": "redirect"}
    assert SESSION not in device.cookies
    assert await sessions_and_links(parts) == before
    assert await audited(parts, tenant.info.id, "sso.refused") == 1
    provider.fault = None
    assert (await entered(device)).status_code == 200


async def test_a_provider_that_is_away_or_endless(
    app: Litestar, staff: Colleague, parts: Parts, provider: OidcSandbox
) -> None:
    device = Device(app)
    url = await away(device)
    back = await at_provider(url)
    before = await sessions_and_links(parts)
    provider.fault = "down"
    assert error(await device.get(back))[:2] == (503, "UPSTREAM_UNAVAILABLE")
    assert error(await device.get(f"{SSO}/acme"))[:2] == (503, "UPSTREAM_UNAVAILABLE")
    provider.fault = "huge"
    assert (await device.get(f"{SSO}/acme")).status_code in (401, 422)
    assert await sessions_and_links(parts) == before


async def test_only_the_browser_that_was_sent_comes_back_and_once(
    app: Litestar, staff: Colleague, parts: Parts, tenant: TestTenant
) -> None:
    victim, attacker = Device(app), Device(app)
    before = await sessions_and_links(parts)
    # The attacker's own state and code in the victim's browser, which was sent away too, or never.
    mine = await at_provider(await away(attacker))
    assert error(await Device(app).get(mine)) == (401, "UNAUTHENTICATED", {"reason": "browser"})
    assert error(await attacker.get(mine)) == (401, "UNAUTHENTICATED", {"reason": "state"})  # used up by that
    await away(victim)
    mine = await at_provider(await away(attacker))
    assert error(await victim.get(mine)) == (401, "UNAUTHENTICATED", {"reason": "browser"})
    # A state of nobody's, none, and an answer to another one.
    for query in ("state=made-up&code=x", "code=x", ""):
        refused = await attacker.get(f"{SSO}/callback?{query}")
        assert error(refused) == (401, "UNAUTHENTICATED", {"reason": "state"})
    back = await at_provider(await away(attacker))
    await behind(parts, "update one_time_tokens set expires_at = clock_timestamp() where purpose = 'oidc'")
    assert error(await attacker.get(back)) == (401, "UNAUTHENTICATED", {"reason": "state"})
    assert await sessions_and_links(parts) == before
    # Replayed after it has worked.
    back = await at_provider(await away(victim))
    cookie = victim.cookies[COOKIE]
    assert (await victim.get(back)).status_code == 200
    victim.cookies[COOKIE] = cookie
    assert error(await victim.get(back)) == (401, "UNAUTHENTICATED", {"reason": "state"})
    assert await audited(parts, tenant.info.id, "sso.refused") == 2


async def test_an_address_is_nobodys_proof(
    app: Litestar, staff: Colleague, parts: Parts, provider: OidcSandbox
) -> None:
    """The same e-mail under another subject is a stranger; the same subject with another e-mail is not."""
    before = await sessions_and_links(parts)
    device = Device(app)
    provider.claims = {"email": staff.email, "email_verified": True}
    provider.fault = "other_subject"
    refused = await entered(device)
    assert error(refused) == (403, "FORBIDDEN", {"reason": "not_linked"})
    assert "linked with no account" in refused.json()["error"]["message"]
    assert SESSION not in device.cookies
    assert await sessions_and_links(parts) == before
    provider.fault, provider.claims = None, {"email": "somebody@else.example"}
    assert (await entered(device)).status_code == 200


async def test_ones_own_second_factor_is_asked_for_where_the_provider_asked_for_none(
    app: Litestar, staff: Colleague, provider: OidcSandbox
) -> None:
    await staff.set_up_totp()
    device = Device(app)
    assert (await entered(device)).json()["status"] == "signed_in"  # the provider says: mfa
    provider.claims = {"amr": ["pwd"]}
    device = Device(app)
    challenged = (await entered(device)).json()
    assert (challenged["status"], challenged["factors"]) == ("second_factor", ["totp", "recovery_code"])
    assert SESSION not in device.cookies
    proof = {"challenge": challenged["challenge"], "code": staff.code()}
    done = await device.post(f"{LOGIN}/second-factor", proof)
    assert (done.status_code, done.json()) == (200, {"status": "signed_in", "tenant": "acme"})
    assert (await device.get(ME)).json()["amr"] == ["fed", "otp"]
    page = await entered(Device(app), accept="text/html")
    where, _, token = page.headers["location"].partition("=")
    assert (page.status_code, where, token[:4]) == (302, "/account#second_factor", "mfa_")


async def test_doors_that_are_closed(
    app: Litestar,
    owner: Colleague,
    staff: Colleague,
    connection: str,
    parts: Parts,
    tenant: TestTenant,
    other_tenant: TestTenant,
) -> None:
    device = Device(app)
    for unknown in ("nobody", "globex", "acme?connection=" + str(uuid4())):
        assert error(await device.get(f"{SSO}/{unknown}")) == (404, "NOT_FOUND", {})
    back, disabled = await at_provider(await away(device)), {"enabled": False}
    assert (await owner.patch(connection, disabled)).json()["enabled"] is False
    assert error(await device.get(back)) == (403, "FORBIDDEN", {"reason": "closed"})
    assert error(await device.get(f"{SSO}/acme")) == (404, "NOT_FOUND", {})
    assert (await owner.patch(connection, {"enabled": True})).status_code == 200

    async def refused(reason: str, change: str, undo: str, target: Any) -> None:
        back = await at_provider(await away(device))
        await behind(parts, change, id=target)
        assert error(await device.get(back)) == (403, "FORBIDDEN", {"reason": reason})
        await behind(parts, undo, id=target)

    member = "update members set state = '{}' where account_id = :id"
    account = "update accounts set state = '{}' where id = :id"
    business = "update tenants set state = '{}' where id = :id"
    before = await sessions_and_links(parts)
    await refused("not_linked", member.format("disabled"), member.format("active"), staff.account_id)
    await refused("not_linked", account.format("disabled"), account.format("active"), staff.account_id)
    await refused("closed", business.format("suspended"), business.format("active"), tenant.info.id)
    await behind(parts, business.format("suspended"), id=tenant.info.id)
    assert error(await device.get(f"{SSO}/acme")) == (404, "NOT_FOUND", {})
    await behind(parts, business.format("active"), id=tenant.info.id)
    assert await sessions_and_links(parts) == before
    assert (await entered(device)).status_code == 200


async def test_linking_is_for_the_person_themselves(
    app: Litestar, staff: Colleague, connection: str, parts: Parts, tenant: TestTenant, provider: OidcSandbox
) -> None:
    before = await sessions_and_links(parts)
    other = await colleague(app, parts, tenant, "staff")
    # The provider's person is linked with somebody else.
    taken = await other.get(await at_provider(await linking(other)))
    assert error(taken) == (409, "CONFLICT", {})
    # In another browser, or after signing out, it is not the person's wish any more.
    provider.fault = "other_subject"
    back = await at_provider(await linking(other))
    assert error(await Device(app).get(back)) == (401, "UNAUTHENTICATED", {"reason": "browser"})
    back = await at_provider(await linking(other))
    assert (await other.post(f"{AUTH}/logout")).status_code == 204
    assert error(await other.get(back)) == (403, "FORBIDDEN", {"reason": "session"})
    assert (await sessions_and_links(parts))[1] == before[1]

    await long_ago(app, parts, staff)
    assert error(await staff.post(f"{SSO}/link", {})) == (403, "FORBIDDEN", {"reason": "step_up"})
    operator = await operator_inside(app, parts, tenant, ["tenant:write"])
    assert error(await operator.post(f"{SSO}/link", {}))[:2] == (403, "FORBIDDEN")
    assert (await Device(app).post(f"{SSO}/link", {})).status_code == 401
    provider.fault = None
    inside = Device(app)
    await entered(inside)
    assert error(await inside.post(f"{SSO}/link", {})) == (403, "FORBIDDEN", {"reason": "federated"})
    assert (await sessions_and_links(parts))[1] == before[1]


async def test_ones_own_links_are_seen_and_taken_away(
    app: Litestar, staff: Colleague, issuer: str, parts: Parts, tenant: TestTenant
) -> None:
    again = await staff.get(await at_provider(await linking(staff)))
    assert again.json() == {"status": "linked"}
    (mine,) = (await staff.get(f"{SSO}/identities")).json()
    assert (mine["tenant"], mine["issuer"]) == ("acme", issuer)
    other = await colleague(app, parts, tenant, "staff")
    assert (await other.get(f"{SSO}/identities")).json() == []
    assert error(await other.delete(f"{SSO}/identities/{mine['id']}")) == (404, "NOT_FOUND", {})
    assert (await entered(Device(app))).status_code == 200
    assert (await staff.delete(f"{SSO}/identities/{mine['id']}")).status_code == 204
    assert error(await entered(Device(app))) == (403, "FORBIDDEN", {"reason": "not_linked"})
    assert await audited(parts, tenant.info.id, "sso.unlinked") == 1


async def test_who_may_connect_what(
    app: Litestar, owner: Colleague, staff: Colleague, connection: str, parts: Parts, tenant: TestTenant,
    other_tenant: TestTenant, issuer: str,
) -> None:  # fmt: skip
    async def stored() -> Any:
        return await behind(parts, "select string_agg(c::text, '|' order by c.id) from sso_connections c")

    before = await stored()
    new = {"issuer": "https://login.acme.example", "client_id": "a", "client_secret": "b"}
    outsider = await colleague(app, parts, other_tenant)
    operator = await operator_inside(app, parts, tenant, ["tenant:read", "tenant:write"])
    for status, refused in (
        (422, await owner.post(CONNECTIONS, {**new, "issuer": "http://login.acme.example"})),
        (422, await owner.post(CONNECTIONS, {**new, "issuer": "https://127.0.0.1"})),
        (422, await owner.post(CONNECTIONS, {**new, "issuer": "https://login.acme.example?tenant=a"})),
        (422, await owner.post(CONNECTIONS, {**new, "issuer": "https://login.acme.example#a"})),
        (422, await owner.post(CONNECTIONS, {**new, "issuer": "login.acme.example"})),
        (409, await owner.post(CONNECTIONS, {**new, "issuer": issuer})),
        (400, await owner.post(CONNECTIONS, {**new, "client_secret": ""})),
        (400, await owner.patch(connection, {"issuer": "https://login.acme.example"})),
        (403, await staff.get(CONNECTIONS)),
        (403, await staff.post(CONNECTIONS, new)),
        (403, await operator.post(CONNECTIONS, new)),
        (403, await operator.patch(connection, {"enabled": False})),
        (403, await operator.delete(connection)),
        (404, await outsider.patch(connection, {"enabled": False})),
        (404, await outsider.delete(connection)),
        (404, await owner.delete(f"{CONNECTIONS}/{uuid4()}")),
    ):
        assert refused.status_code == status, (refused.request.method, refused.text)
    await long_ago(app, parts, owner)
    for refused in (
        await owner.post(CONNECTIONS, new),
        await owner.patch(connection, {"enabled": False}),
        await owner.delete(connection),
    ):
        assert error(refused) == (403, "FORBIDDEN", {"reason": "step_up"})
    assert await stored() == before
    assert (await entered(Device(app))).status_code == 200


async def test_a_removed_connection_leaves_no_links_behind(
    app: Litestar, owner: Colleague, staff: Colleague, connection: str, provider: OidcSandbox, issuer: str,
    parts: Parts, tenant: TestTenant,
) -> None:  # fmt: skip
    assert (await owner.delete(connection)).status_code == 204
    assert (await sessions_and_links(parts))[1] == 0
    assert error(await Device(app).get(f"{SSO}/acme")) == (404, "NOT_FOUND", {})
    # The same provider again is another connection: its people link themselves anew.
    secret = {"client_id": provider.client_id, "client_secret": provider.client_secret}
    assert (await owner.post(CONNECTIONS, {"issuer": issuer, **secret})).status_code == 201
    assert error(await entered(Device(app))) == (403, "FORBIDDEN", {"reason": "not_linked"})
    async with parts.database.tenant_session(tenant.context) as session:
        found = await session.execute(
            text("select action, detail from audit_log where object_type = 'sso_connection' order by seq")
        )
        seen = [(row.action, row.detail.get("links"), row.detail.get("why")) for row in found]
    assert seen == [
        ("sso_connection.created", None, None),
        ("sso_connection.removed", 1, None),
        ("sso_connection.created", None, None),
        ("sso.refused", None, "not_linked"),
    ]


def test_an_issuer_in_the_own_network_is_the_operators_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sso.check_issuer("https://login.acme.example/realms/a") == "https://login.acme.example/realms/a"
    for inner in (
        "http://10.0.0.5:8080",
        "https://10.0.0.5:8080",
        "https://login.internal",
        "http://acme.example",
    ):
        with pytest.raises(AppError):
            sso.check_issuer(inner)
    monkeypatch.setenv("SSO_PRIVATE_PROVIDERS", "10.0.0.5:8080, login.internal:443")
    for inner in ("http://10.0.0.5:8080", "https://10.0.0.5:8080", "https://login.internal"):
        assert sso.check_issuer(inner) == inner
    for other in ("http://10.0.0.5:8081", "http://acme.example", "https://10.0.0.6:8080"):
        with pytest.raises(AppError):
            sso.check_issuer(other)


async def test_somebody_elsewhere_employed_stays_in_this_business(
    app: Litestar, staff: Colleague, parts: Parts, tenant: TestTenant, other_tenant: TestTenant
) -> None:
    """The session is the connection's business's, also where the person has others, and came to one of them first."""
    made = await person(parts, other_tenant)
    await behind(parts, "update sso_identities set account_id = :id", id=made.account_id)
    assert error(await entered(Device(app))) == (403, "FORBIDDEN", {"reason": "not_linked"})
    await behind(
        parts,
        """
        insert into members (tenant_id, id, account_id, role_id, email, name)
        select :tenant, gen_random_uuid(), :id, r.id, :email, 'Pat' from roles r where r.tenant_id = :tenant and r.key = 'staff'
        """,
        tenant=tenant.info.id,
        id=made.account_id,
        email=made.email,
    )
    device = Device(app)
    assert (await entered(device)).json() == {"status": "signed_in", "tenant": "acme"}
    assert (await device.get(ME)).json()["tenant_id"] == str(tenant.info.id)
