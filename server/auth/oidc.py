"""Signing in with a company's own identity provider: OpenID Connect 1.0, authorization code with PKCE (S256), state and
nonce. The issuer is configured and pinned; a person is ``(issuer, subject)``, never an e-mail address.
"""

import base64
import hmac
import json
import secrets
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx
from authlib.common.errors import AuthlibBaseError  # type: ignore[import-untyped]  # the package has no types
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # type: ignore[import-untyped]  # as above
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]  # as above
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]  # as above
from joserfc import jws, jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import Key, KeySet

from storage.errors import Unauthenticated, UpstreamUnavailable

ALGORITHMS = ("RS256", "ES256", "EdDSA")
LEEWAY = 30
_MAX_BYTES = 256 * 1024
_CACHE_SECONDS = 3600
_KEYS_AGAIN_SECONDS = 60  # an unknown key id makes us ask again, but not at every token that a stranger sends
_KEY_TYPES = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}


@dataclass(frozen=True)
class Started:
    """Send the browser to ``url``; store the rest with the browser's session for one use and a few minutes."""

    url: str
    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True)
class Identity:
    """Who signed in there. ``issuer`` and ``subject`` together name the person; the rest is for show.

    Attributes:
        email_verified: only where the provider says so.
        amr: how the person proved who they are, as the provider says.
    """

    issuer: str
    subject: str
    email: str | None
    email_verified: bool
    name: str | None
    amr: tuple[str, ...]


class OidcProvider:
    """One provider; keep the object, it keeps the provider's keys for an hour.

    Args:
        issuer: exactly as in the provider's tokens, ``https://…``.
        client_secret: None for a public client.
        client: guarded against addresses inside our network, with time-outs. Redirects are not followed.
        now: seconds since 1970.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str | None,
        client: httpx.AsyncClient,
        scopes: tuple[str, ...] = ("openid", "email", "profile"),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._client = client
        self._scope = " ".join(dict.fromkeys(("openid", *scopes)))
        self._now = now
        self._metadata: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None

    async def start(self, redirect_uri: str) -> Started:
        """The first leg.

        Raises:
            UpstreamUnavailable: the provider does not answer.
            Unauthenticated: its description is not what was configured.
        """
        metadata = await self._describe()
        state, nonce = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        verifier = secrets.token_urlsafe(48)  # 64 characters; RFC 7636 wants 43 to 128
        url = prepare_grant_uri(
            metadata["authorization_endpoint"],
            client_id=self._client_id,
            response_type="code",
            redirect_uri=redirect_uri,
            scope=self._scope,
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        return Started(str(url), state, nonce, verifier)

    async def finish(
        self, answer: Mapping[str, str], redirect_uri: str, *, state: str, nonce: str, verifier: str
    ) -> Identity:
        """The second leg: exchange the code, check the ID token.

        Args:
            answer: the query of the address that the browser was sent back to.
            redirect_uri: the same as in ``start``.
            state: of ``Started``, as ``nonce`` and ``verifier``; the caller has used them up, so none comes twice.

        Raises:
            Unauthenticated: anything about the answer or the token is not as it must be; ``details.reason`` says what.
            UpstreamUnavailable: the provider does not answer.
        """
        if not state or not hmac.compare_digest(answer.get("state", "").encode(), state.encode()):
            raise _refused("state")
        metadata = await self._describe()
        promised = metadata.get("authorization_response_iss_parameter_supported") is True
        if ("iss" in answer or promised) and answer.get(
            "iss"
        ) != self._issuer:  # RFC 9207: mix-up of two providers
            raise _refused("issuer")
        if "error" in answer:
            raise _refused("denied")
        if not answer.get("code") or not nonce or not verifier:
            raise _refused("code")
        tokens = await self._exchange(metadata, answer["code"], redirect_uri, verifier)
        id_token, access_token = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(id_token, str):
            raise _refused("id_token")
        return _identity(await self._verified(id_token, nonce, access_token))

    async def _describe(self) -> dict[str, Any]:
        if self._metadata and self._now() - self._metadata[0] < _CACHE_SECONDS:
            return self._metadata[1]
        url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        metadata = await self._json("GET", url)
        if metadata.get("issuer") != self._issuer:
            raise _refused("issuer")
        scheme = urlsplit(self._issuer).scheme
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            endpoint = metadata.get(name)
            if not isinstance(endpoint, str) or urlsplit(endpoint).scheme not in {"https", scheme}:
                raise _refused("discovery")
        methods = metadata.get("code_challenge_methods_supported")
        if isinstance(methods, list) and "S256" not in methods:
            raise _refused("pkce")
        self._metadata = (self._now(), metadata)
        return metadata

    async def _exchange(
        self, metadata: Mapping[str, Any], code: str, redirect_uri: str, verifier: str
    ) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if self._client_secret is None:
            form["client_id"] = self._client_id
        elif "client_secret_basic" in methods:
            # RFC 6749, 2.3.1: both parts form-encoded first
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._client_secret)}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        return await self._json("POST", metadata["token_endpoint"], form=form, headers=headers)

    async def _verified(self, id_token: str, nonce: str, access_token: object) -> CodeIDToken:
        try:
            header = jws.extract_compact(id_token.encode()).headers()
            key = await self._key(header)
            with warnings.catch_warnings():
                # RFC 9864 gives EdDSA a name for each curve; providers use the old one.
                warnings.simplefilter("ignore", SecurityWarning)
                token = jwt.decode(id_token, key, algorithms=ALGORITHMS)
            claims = CodeIDToken(
                token.claims,
                token.header,
                {
                    "iss": {"essential": True, "value": self._issuer},
                    "sub": {"essential": True},
                    "aud": {"essential": True, "value": self._client_id},
                },
                {
                    "nonce": nonce,
                    "client_id": self._client_id,
                    "access_token": access_token if isinstance(access_token, str) else None,
                },
            )
            claims.validate(now=int(self._now()), leeway=LEEWAY)
        except (JoseError, AuthlibBaseError) as error:
            raise _refused(str(getattr(error, "claim", None) or error.error)) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _refused("malformed") from error
        return claims

    async def _key(self, header: Mapping[str, Any]) -> Key:
        """The provider's key that the token names. Only from its own list: a key or an address in the token is not
        looked at.
        """
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise _refused("algorithm")
        fresh_since = self._now() - _CACHE_SECONDS
        if self._keys is None or self._keys[0] < fresh_since:
            await self._fetch_keys()
        key = self._find(kid, str(algorithm))
        if key is None and self._keys and self._now() - self._keys[0] >= _KEYS_AGAIN_SECONDS:
            await self._fetch_keys()
            key = self._find(kid, str(algorithm))
        if key is None:
            raise _refused("key")
        return key

    def _find(self, kid: object, algorithm: str) -> Key | None:
        fitting = [
            key
            for key in (self._keys[1].keys if self._keys else [])
            if key.key_type == _KEY_TYPES[algorithm] and key.get("use", "sig") == "sig"
        ]
        if kid is None:  # allowed by the standard where there is no choice
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.get("kid") == kid), None)

    async def _fetch_keys(self) -> None:
        metadata = await self._describe()
        listed = (await self._json("GET", metadata["jwks_uri"])).get("keys")
        keys = []
        for one in listed if isinstance(listed, list) else []:
            try:  # a key of a kind that we do not know must not hide the others; a private one is never meant
                keys += KeySet.import_key_set({"keys": [one]}).keys
            except (JoseError, ValueError, TypeError, KeyError, AttributeError):
                continue
        self._keys = (self._now(), KeySet(keys))

    async def _json(
        self,
        method: str,
        url: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        accept = {"accept": "application/json", **(headers or {})}
        try:
            async with self._client.stream(
                method, url, data=form, headers=accept, follow_redirects=False
            ) as answer:
                content = b""
                async for part in answer.aiter_bytes():
                    content += part
                    if len(content) > _MAX_BYTES:
                        raise _refused("size")
        except httpx.HTTPError as error:
            raise UpstreamUnavailable("The identity provider does not answer. Try again later.") from error
        if answer.status_code >= 500 or answer.status_code == 429:
            raise UpstreamUnavailable("The identity provider has a problem. Try again later.")
        if answer.status_code != 200:
            raise _refused("status")
        try:
            parsed = json.loads(content)
        except ValueError as error:
            raise _refused("malformed") from error
        if not isinstance(parsed, dict):
            raise _refused("malformed")
        return parsed


def _identity(claims: Mapping[str, Any]) -> Identity:
    subject, email, name, amr = (claims.get(key) for key in ("sub", "email", "name", "amr"))
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:  # OpenID Connect Core, 2
        raise _refused("sub")
    return Identity(
        issuer=str(claims["iss"]),
        subject=subject,
        email=email if isinstance(email, str) else None,
        email_verified=claims.get("email_verified") is True,
        name=name if isinstance(name, str) else None,
        amr=tuple(method for method in amr if isinstance(method, str)) if isinstance(amr, list) else (),
    )


def _refused(reason: str) -> Unauthenticated:
    return Unauthenticated(
        "Signing in with the identity provider did not succeed. Start again; if it fails again, ask your administrator.",
        reason=reason,
    )
