"""A sandbox that speaks OpenID Connect: the real client signs people in with it, a test orders its faults."""

import base64
import hashlib
import hmac
import json
import secrets
import threading
import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, unquote_plus, urlencode

from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromQuery
from litestar.response import Redirect

Fault = Literal[
    "alg_none",
    "hs256_with_public_key",
    "wrong_issuer",
    "wrong_discovery_issuer",
    "wrong_audience",
    "foreign_azp",
    "no_azp",
    "wrong_nonce",
    "no_nonce",
    "expired",
    "not_yet",
    "no_subject",
    "swapped_key",
    "wrong_at_hash",
    "key_in_header",
    "unknown_kid",
    "other_subject",
    "wrong_response_issuer",
    "no_id_token",
    "huge",
    "redirect",
    "down",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)


@dataclass
class Grant:
    """A code that was given out."""

    redirect_uri: str
    nonce: str
    challenge: str


def half_hash(text: str, digest: str) -> str:
    full = hashlib.new(digest, text.encode()).digest()
    return base64.urlsafe_b64encode(full[: len(full) // 2]).decode().rstrip("=")


class OidcSandbox:
    """State of the fake provider; its issuer is the address that it is asked under.

    Args:
        client_id: the one client that is registered.
        client_secret: of that client, which authenticates by HTTP Basic.
    """

    def __init__(self, client_id: str = "secretary", client_secret: str = "sëcret:/ +") -> None:
        self.client_id = client_id
        self.client_secret = client_secret
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Forget codes, faults and requests; new keys."""
        with self._lock:
            self.fault: Fault | None = None
            self.algorithm = "RS256"
            self.grants: dict[str, Grant] = {}
            self.paths: list[str] = []
            self.claims: dict[str, Any] = {}
            self._rotate()

    def rotate(self) -> None:
        """Sign with new keys from now on, and publish only those."""
        with self._lock:
            self._rotate()

    def _rotate(self) -> None:
        name = secrets.token_hex(4)
        made: dict[str, Key] = {
            "RS256": RSAKey.generate_key(2048, {"kid": f"rsa-{name}", "use": "sig"}),
            "ES256": ECKey.generate_key("P-256", {"kid": f"ec-{name}", "use": "sig"}),
            "EdDSA": OKPKey.generate_key("Ed25519", {"kid": f"ed-{name}", "use": "sig"}),
        }
        self.keys = made

    def release(self) -> None:
        """Nothing here waits."""

    def app(self) -> Litestar:
        """The ASGI app: the provider's endpoints, and /__control for a test's orders over HTTP."""
        handlers = [discovery, authorize, token, jwks, control]
        return Litestar(handlers, state=State({"sandbox": self}), openapi_config=None, logging_config=None)

    def strikes(self, fault: Fault) -> bool:
        return self.fault == fault

    def id_token(self, issuer: str, nonce: str, access_token: str) -> str:
        """The ID token, with the fault that was ordered."""
        now = int(time.time())
        digest = "sha512" if self.algorithm == "EdDSA" else "sha256"
        claims: dict[str, Any] = {
            "iss": issuer,
            "sub": "subject-1",
            "aud": self.client_id,
            "iat": now,
            "exp": now + 300,
            "nonce": nonce,
            "email": "erika@example.com",
            "email_verified": True,
            "name": "Erika Mustermann",
            "amr": ["pwd", "mfa"],
            "at_hash": half_hash(access_token, digest),
            **self.claims,
        }
        changes: dict[str, dict[str, Any]] = {
            "wrong_issuer": {"iss": "https://elsewhere.example"},
            "wrong_audience": {"aud": "another-client"},
            "foreign_azp": {"aud": [self.client_id, "another-client"], "azp": "another-client"},
            "no_azp": {"aud": [self.client_id, "another-client"]},
            "wrong_nonce": {"nonce": "another"},
            "expired": {"iat": now - 600, "exp": now - 31},
            "not_yet": {"iat": now + 3600, "exp": now + 7200},
            "wrong_at_hash": {"at_hash": half_hash("another", digest)},
            "other_subject": {"sub": "subject-2"},
        }
        claims |= changes.get(self.fault or "", {})
        for fault, name in (("no_nonce", "nonce"), ("no_subject", "sub")):
            if self.fault == fault:
                del claims[name]
        return self._signed(claims)

    def _signed(self, claims: dict[str, Any]) -> str:
        key = self.keys[self.algorithm]
        header: dict[str, Any] = {"alg": self.algorithm, "kid": key.kid}
        if self.strikes("alg_none"):
            return f"{_part({'alg': 'none'})}.{_part(claims)}."
        if self.strikes("hs256_with_public_key"):
            public = self.keys["RS256"]
            assert isinstance(public, RSAKey)
            pem = public.as_bytes(encoding="PEM", private=False)
            signed = f"{_part({'alg': 'HS256', 'kid': key.kid})}.{_part(claims)}"
            mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
            return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
        if self.strikes("swapped_key"):
            key = RSAKey.generate_key(2048)
        if self.strikes("key_in_header"):
            key = ECKey.generate_key("P-256")
            header = {"alg": "ES256", "kid": self.keys["ES256"].kid, "jwk": key.as_dict(private=False)}
        if self.strikes("unknown_kid"):
            header["kid"] = "nobody-published-this"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # EdDSA is a name of yesterday, and still in use
            return jwt.encode(header, claims, key, algorithms=[str(header["alg"])])


def _part(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def _arrived(request: Request[Any, Any, State]) -> tuple[OidcSandbox, str]:
    sandbox: OidcSandbox = request.app.state.sandbox
    sandbox.paths.append(request.url.path)
    return sandbox, str(request.base_url).rstrip("/")


@get("/.well-known/openid-configuration", sync_to_thread=False)
def discovery(request: Request[Any, Any, State]) -> Response[Any]:
    sandbox, issuer = _arrived(request)
    if sandbox.strikes("down"):
        return Response({"error": "down"}, status_code=503)
    if sandbox.strikes("huge"):
        return Response("x" * 1_000_000, media_type=MediaType.JSON)
    if sandbox.strikes("redirect"):
        return Redirect("/jwks")
    return Response(
        {
            "issuer": "https://elsewhere.example" if sandbox.strikes("wrong_discovery_issuer") else issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "jwks_uri": f"{issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "authorization_response_iss_parameter_supported": True,
        }
    )


@get("/authorize", sync_to_thread=False)
def authorize(request: Request[Any, Any, State]) -> Response[Any]:
    """Signs the one person in without asking."""
    sandbox, issuer = _arrived(request)
    query = request.query_params
    wanted = {"response_type": "code", "client_id": sandbox.client_id, "code_challenge_method": "S256"}
    if (
        any(query.get(name) != value for name, value in wanted.items())
        or "openid" not in query["scope"].split()
    ):
        return Response({"error": "invalid_request"}, status_code=400)
    code = secrets.token_urlsafe(16)
    sandbox.grants[code] = Grant(query["redirect_uri"], query["nonce"], query["code_challenge"])
    back = {"code": code, "state": query["state"], "iss": issuer}
    if sandbox.strikes("wrong_response_issuer"):
        back["iss"] = "https://elsewhere.example"
    return Redirect(f"{query['redirect_uri']}?{urlencode(back)}")


@post("/token", status_code=200)
async def token(request: Request[Any, Any, State]) -> Response[Any]:
    """Gives tokens for a code once, to its client, with its verifier and its address."""
    sandbox, issuer = _arrived(request)
    form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    pair = base64.b64decode(credentials).decode().split(":") if scheme == "Basic" else []
    if [unquote_plus(part) for part in pair] != [sandbox.client_id, sandbox.client_secret]:
        return Response({"error": "invalid_client"}, status_code=401)
    grant = sandbox.grants.pop(form.get("code", ""), None)
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    if grant is None or (grant.challenge, grant.redirect_uri) != (challenge, form.get("redirect_uri")):
        return Response({"error": "invalid_grant"}, status_code=400)
    access = secrets.token_urlsafe(16)
    tokens = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
    if not sandbox.strikes("no_id_token"):
        tokens["id_token"] = sandbox.id_token(issuer, grant.nonce, access)
    return Response(tokens)


@get("/jwks", sync_to_thread=False)
def jwks(request: Request[Any, Any, State]) -> dict[str, Any]:
    sandbox, _ = _arrived(request)
    unusable = {"kty": "XYZ", "kid": "of-a-kind-nobody-knows"}
    return {"keys": [unusable, *(key.as_dict(private=False) for key in sandbox.keys.values())]}


@post("/__control", sync_to_thread=False, status_code=200)
def control(request: Request[Any, Any, State], fault: FromQuery[str]) -> dict[str, Any]:
    """``POST /__control?fault=…`` orders a fault; ``none`` ends it, ``rotate`` makes new keys."""
    sandbox: OidcSandbox = request.app.state.sandbox
    if fault == "rotate":
        sandbox.rotate()
    elif fault in FAULTS:
        sandbox.fault = next(known for known in FAULTS if known == fault)
    else:
        sandbox.fault = None
    return {"fault": sandbox.fault}
