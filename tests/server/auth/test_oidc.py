"""Signing in with an identity provider over the real wire, and every way in which it may lie."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from server.auth.oidc import Identity, OidcProvider, Started
from storage.errors import Unauthenticated, UpstreamUnavailable
from tests.sandbox.oidc import Fault, OidcSandbox
from tests.sandbox.server import serve

BACK = "https://app.example/api/v1/auth/oidc/callback"


@dataclass
class Clock:
    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Browser:
    """The person's browser between the two."""

    sandbox: OidcSandbox
    issuer: str
    client: httpx.AsyncClient
    clock: Clock = field(default_factory=Clock)

    def provider(self, client_id: str = "secretary", issuer: str | None = None) -> OidcProvider:
        return OidcProvider(
            issuer or self.issuer, client_id, self.sandbox.client_secret, self.client, now=self.clock
        )

    async def visit(self, started: Started) -> dict[str, str]:
        answer = await self.client.get(started.url)
        assert answer.status_code == 302
        return {
            name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()
        }

    async def sign_in(self, provider: OidcProvider | None = None) -> Identity:
        provider = provider or self.provider()
        started = await provider.start(BACK)
        return await finish(provider, started, await self.visit(started))


async def finish(
    provider: OidcProvider, started: Started, answer: dict[str, str], back: str = BACK
) -> Identity:
    return await provider.finish(
        answer, back, state=started.state, nonce=started.nonce, verifier=started.verifier
    )


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OidcSandbox, str]]:
    sandbox = OidcSandbox()
    with serve(sandbox) as url:
        yield sandbox, url


@pytest.fixture
async def browser(served: tuple[OidcSandbox, str]) -> AsyncIterator[Browser]:
    served[0].reset()
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        yield Browser(*served, client)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_signing_in(browser: Browser, algorithm: str) -> None:
    browser.sandbox.algorithm = algorithm
    assert await browser.sign_in() == Identity(
        browser.issuer, "subject-1", "erika@example.com", True, "Erika Mustermann", ("pwd", "mfa")
    )
    assert browser.sandbox.paths == ["/.well-known/openid-configuration", "/authorize", "/token", "/jwks"]


async def test_each_start_has_its_own_secrets_and_sends_only_the_challenge(browser: Browser) -> None:
    provider = browser.provider()
    first, second = await provider.start(BACK), await provider.start(BACK)
    for name in ("state", "nonce", "verifier"):
        assert getattr(first, name) != getattr(second, name)
        assert len(getattr(first, name)) >= 43
    query = parse_qs(urlsplit(first.url).query)
    assert set(query) == {"client_id", "response_type", "redirect_uri", "scope", "state", "nonce",
                          "code_challenge", "code_challenge_method"}  # fmt: skip
    assert query["code_challenge_method"] == ["S256"]
    assert first.verifier not in first.url


REASONS: dict[Fault, str] = {
    "alg_none": "algorithm",
    "hs256_with_public_key": "algorithm",
    "wrong_issuer": "iss",
    "wrong_discovery_issuer": "issuer",
    "wrong_audience": "aud",
    "foreign_azp": "azp",
    "no_azp": "azp",
    "wrong_nonce": "nonce",
    "no_nonce": "nonce",
    "expired": "exp",
    "not_yet": "iat",
    "no_subject": "sub",
    "swapped_key": "bad_signature",
    "key_in_header": "bad_signature",
    "wrong_at_hash": "at_hash",
    "unknown_kid": "key",
    "wrong_response_issuer": "issuer",
    "no_id_token": "id_token",
    "huge": "size",
    "redirect": "status",
}


@pytest.mark.parametrize(("fault", "reason"), REASONS.items())
async def test_every_lie_is_refused_for_its_own_reason(browser: Browser, fault: Fault, reason: str) -> None:
    ordered = await browser.client.post(f"{browser.issuer}/__control", params={"fault": fault})
    assert ordered.json() == {"fault": fault}
    with pytest.raises(Unauthenticated) as refused:
        await browser.sign_in()
    # the code's name of the error stands where there is no claim to name
    assert (
        refused.value.details["reason"].replace("expired_token", "exp").replace("invalid_token", "iat")
        == reason
    )


@pytest.mark.parametrize(
    ("seconds", "works"), [(29, True), (-325, False)], ids=["in the future by 29 s", "expired for 35 s"]
)
async def test_clocks_may_differ_by_thirty_seconds(browser: Browser, seconds: int, works: bool) -> None:
    now = int(time.time()) + seconds
    browser.sandbox.claims = {"iat": now, "exp": now + 290}
    if works:
        assert (await browser.sign_in()).subject == "subject-1"
    else:
        with pytest.raises(Unauthenticated):
            await browser.sign_in()


async def test_the_same_address_with_another_subject_is_another_person(browser: Browser) -> None:
    first = await browser.sign_in()
    browser.sandbox.fault = "other_subject"
    second = await browser.sign_in()
    assert (first.email, first.subject) == (second.email, "subject-1")
    assert second.subject == "subject-2"


@pytest.mark.parametrize("value", ["true", 1, None, False])
async def test_only_a_plain_true_verifies_an_address(browser: Browser, value: object) -> None:
    browser.sandbox.claims = {"email_verified": value}
    assert (await browser.sign_in()).email_verified is False


async def test_a_state_a_code_or_a_verifier_that_is_not_ours_is_refused(browser: Browser) -> None:
    provider = browser.provider()

    async def refused(change: Callable[[dict[str, str]], object], reason: str, **of: str) -> None:
        started = await provider.start(BACK)
        answer = await browser.visit(started)
        change(answer)
        kept = {"state": started.state, "nonce": started.nonce, "verifier": started.verifier, **of}
        with pytest.raises(Unauthenticated) as error:
            await provider.finish(answer, BACK, **kept)
        assert error.value.details == {"reason": reason}

    await refused(lambda answer: answer.update(state="another"), "state")
    await refused(lambda answer: answer.pop("state"), "state")
    await refused(lambda answer: answer.update(state=""), "state", state="")
    await refused(lambda answer: answer.pop("code"), "code")
    await refused(lambda answer: answer.pop("iss"), "issuer")
    await refused(lambda answer: answer.update(error="access_denied"), "denied")
    await refused(lambda answer: None, "code", verifier="")
    await refused(lambda answer: None, "code", nonce="")
    await refused(lambda answer: None, "status", verifier="x" * 64)
    await refused(lambda answer: None, "nonce", nonce="x" * 43)


async def test_a_code_works_once_and_for_its_address(browser: Browser) -> None:
    provider = browser.provider()
    started = await provider.start(BACK)
    answer = await browser.visit(started)
    await finish(provider, started, answer)
    for again, back in ((answer, BACK), (None, f"{BACK}/elsewhere")):
        started_again = started if again else await provider.start(BACK)
        with pytest.raises(Unauthenticated) as refused:
            await finish(provider, started_again, again or await browser.visit(started_again), back)
        assert refused.value.details == {"reason": "status"}


async def test_keys_are_kept_and_asked_for_again_when_one_is_unknown_but_not_at_every_token(
    browser: Browser,
) -> None:
    provider = browser.provider()
    await browser.sign_in(provider)
    await browser.sign_in(provider)
    assert browser.sandbox.paths.count("/jwks") == 1
    browser.clock.ahead = 61
    browser.sandbox.rotate()
    assert (await browser.sign_in(provider)).subject == "subject-1"
    assert browser.sandbox.paths.count("/jwks") == 2
    browser.sandbox.fault = "unknown_kid"
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await browser.sign_in(provider)
    assert browser.sandbox.paths.count("/jwks") == 2
    assert browser.sandbox.paths.count("/.well-known/openid-configuration") == 1


async def test_a_provider_that_is_down_is_no_refusal(browser: Browser) -> None:
    browser.sandbox.fault = "down"
    with pytest.raises(UpstreamUnavailable):
        await browser.provider().start(BACK)
    with pytest.raises(UpstreamUnavailable):
        await browser.provider(issuer="http://127.0.0.1:1").start(BACK)


@pytest.mark.parametrize(
    "change",
    [
        {"token_endpoint": "http://idp.example/token"},
        {"jwks_uri": None},
        {"code_challenge_methods_supported": ["plain"]},
        {"issuer": "https://idp.example/"},
    ],
)
async def test_a_description_without_tls_or_pkce_is_refused(change: dict[str, object]) -> None:
    issuer = "https://idp.example"
    described = {
        "issuer": issuer,
        **dict.fromkeys(("authorization_endpoint", "token_endpoint", "jwks_uri"), f"{issuer}/x"),
    }

    async def start(metadata: dict[str, object]) -> Started:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json=metadata))
        async with httpx.AsyncClient(transport=transport) as client:
            return await OidcProvider(issuer, "c", None, client).start(BACK)

    assert (await start({**described})).url.startswith("https://idp.example/x?")
    with pytest.raises(Unauthenticated):
        await start({**described, **change})
