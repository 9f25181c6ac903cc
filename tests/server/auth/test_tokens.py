"""Access tokens that are and are not taken, and opaque values."""

import base64
import hashlib
import json
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.warnings import InsecureKeyLengthWarning

from server.auth.tokens import (
    ALGORITHM,
    AUDIENCE,
    ISSUER,
    TYPE,
    AccessClaims,
    Tokens,
    key_id,
    new_opaque,
    opaque_digest,
    signing_key,
)
from storage.errors import Unauthenticated

SECRET, OLD = "s" * 40, "o" * 40
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACCOUNT, TENANT, SESSION = UUID(int=1), UUID(int=2), UUID(int=3)


@dataclass
class Clock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now


def issue(tokens: Tokens) -> str:
    return tokens.issue(
        account_id=ACCOUNT,
        tenant_id=TENANT,
        session_id=SESSION,
        security_version=7,
        amr=("pwd", "otp"),
        auth_time=START - timedelta(minutes=3),
    )


def claims(**changed: Any) -> dict[str, Any]:
    now = int(START.timestamp())
    good = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": str(ACCOUNT), "tid": str(TENANT), "sid": str(SESSION), "sv": 7,
        "jti": str(UUID(int=4)), "iat": now, "nbf": now, "exp": now + 600, "amr": ["pwd"], "auth_time": now,
    }  # fmt: skip
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def signed(content: dict[str, Any], key: Any = None, algorithm: str = ALGORITHM, **header: Any) -> str:
    headers = {"typ": TYPE, "kid": key_id(SECRET), **header}
    with warnings.catch_warnings():
        # ours is too short for HS512, which is the forgery's business
        warnings.simplefilter("ignore", InsecureKeyLengthWarning)
        return jwt.encode(
            content, signing_key(SECRET) if key is None else key, algorithm=algorithm, headers=headers
        )


def test_what_is_issued_is_read() -> None:
    tokens = Tokens(SECRET, now=Clock())
    token = issue(tokens)
    read = tokens.read(token)
    assert read == AccessClaims(
        ACCOUNT, TENANT, SESSION, 7, read.token_id, ("pwd", "otp"), START - timedelta(minutes=3), START,
        START + timedelta(minutes=10),
    )  # fmt: skip
    assert tokens.seconds == 600
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "at+jwt", "kid": key_id(SECRET)}
    content = jwt.decode(token, options={"verify_signature": False})
    assert set(content) == set(claims()), "no rights in the token"
    assert tokens.read(issue(tokens)).token_id != read.token_id


def test_a_token_lasts_ten_minutes_and_the_leeway() -> None:
    clock = Clock()
    tokens = Tokens(SECRET, now=clock)
    token = issue(tokens)
    clock.now = START + timedelta(minutes=10, seconds=29)
    assert tokens.read(token).account_id == ACCOUNT
    clock.now = START + timedelta(minutes=10, seconds=30)
    with pytest.raises(Unauthenticated):
        tokens.read(token)
    clock.now = START - timedelta(seconds=30)
    assert tokens.read(token).account_id == ACCOUNT
    clock.now = START - timedelta(seconds=31)
    with pytest.raises(Unauthenticated):
        tokens.read(token)


def test_a_changed_secret_keeps_old_tokens_while_it_is_named_as_previous() -> None:
    old = issue(Tokens(OLD, now=Clock()))
    rotated = Tokens(SECRET, previous=(OLD,), now=Clock())
    assert rotated.read(old).account_id == ACCOUNT
    assert jwt.get_unverified_header(issue(rotated))["kid"] == key_id(SECRET)
    with pytest.raises(Unauthenticated):
        Tokens(SECRET, now=Clock()).read(old)
    with pytest.raises(Unauthenticated):  # the kid of one key, the signature of another
        rotated.read(signed(claims(), key=signing_key(OLD)))


def test_one_made_by_hand_with_all_that_is_needed_works() -> None:
    """The forgeries below differ from this one in one thing each."""
    assert Tokens(SECRET, now=Clock()).read(signed(claims())).session_id == SESSION


_LATER = int(START.timestamp()) + 31
WRONG_CLAIMS: list[dict[str, Any]] = [
    *({name: None} for name in claims()),
    {"iss": "somebody"}, {"aud": "widget"}, {"aud": [AUDIENCE, "widget"]}, {"aud": [AUDIENCE]},
    {"sub": "erika"}, {"tid": 7}, {"sid": ""}, {"jti": "x"},
    {"sv": "7"}, {"sv": True}, {"sv": 7.0}, {"amr": "pwd"}, {"amr": [1]},
    {"exp": int(START.timestamp()) - 30}, {"exp": "never"}, {"exp": 1e300}, {"exp": 10**40}, {"exp": True},
    {"nbf": _LATER}, {"iat": _LATER}, {"nbf": "now"}, {"auth_time": "now"}, {"auth_time": 10**40},
]  # fmt: skip


@pytest.mark.parametrize("changed", WRONG_CLAIMS, ids=str)
def test_wrong_claims_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        Tokens(SECRET, now=Clock()).read(signed(claims(**changed)))


def forgeries() -> dict[str, str]:
    head, body, signature = signed(claims()).split(".")
    private = generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    other = base64.urlsafe_b64encode(json.dumps(claims(sv=8)).encode()).decode().rstrip("=")
    own_key = {"kty": "oct", "k": base64.urlsafe_b64encode(b"k" * 32).decode().rstrip("=")}
    return {
        "alg none": jwt.encode(claims(), "", algorithm="none", headers={"typ": TYPE, "kid": key_id(SECRET)}),
        "no signature": f"{head}.{body}.",
        "other content": f"{head}.{other}.{signature}",
        "another algorithm of the family": signed(claims(), algorithm="HS512"),
        "RS256": signed(claims(), key=private, algorithm="RS256"),
        "the secret itself as key": signed(claims(), key=SECRET),
        "the public key as secret": signed(claims(), key=base64.b64encode(public)),
        "own key in the header": signed(claims(), key=b"k" * 32, jwk=own_key),
        "jku": signed(claims(), jku="https://evil.example/jwks"),
        "x5u": signed(claims(), x5u="https://evil.example/cert"),
        "jwk": signed(claims(), jwk=own_key),
        "crit": signed(claims(), crit=["exp"]),
        "unknown kid": signed(claims(), kid="0" * 12),
        "kid as a path": signed(claims(), kid="../../../../dev/null"),
        "kid as a statement": signed(claims(), kid="' union select 'k"),
        "no kid": jwt.encode(claims(), signing_key(SECRET), headers={"typ": TYPE}),
        "a refresh token's kind": signed(claims(), typ="rt+jwt"),
        "a widget token's kind": signed(claims(), typ="widget+jwt"),
        "an e-mail token's kind": signed(claims(), typ="mail+jwt"),
        "no kind": signed(claims(), typ=None),
        "the plain kind": signed(claims(), typ="JWT"),
        "opaque": "ref_" + "A" * 43,
        "empty": "",
        "dots": "..",
        "not ASCII": "ü.ü.ü",
        "a list as header": base64.urlsafe_b64encode(b"[]").decode() + f".{body}.{signature}",
    }


@pytest.mark.parametrize(("how", "token"), forgeries().items(), ids=lambda value: str(value)[:24])
def test_forged_tokens_are_refused(how: str, token: str) -> None:
    with pytest.raises(Unauthenticated, match="Sign in again"):
        Tokens(SECRET, now=Clock()).read(token)


def test_keys_are_derived_and_their_names_say_nothing() -> None:
    assert len(signing_key(SECRET)) == 32
    assert signing_key(SECRET) != signing_key(OLD)
    assert key_id(SECRET) != key_id(OLD)
    assert key_id(SECRET) not in hashlib.sha256(SECRET.encode()).hexdigest()


def test_opaque_values_have_256_bit_and_one_kind() -> None:
    values = [new_opaque("ses") for _ in range(50)]
    assert len({value.clear for value in values}) == 50
    for clear, digest in values:
        assert len(base64.urlsafe_b64decode(clear.removeprefix("ses_") + "=")) == 32
        assert digest == hashlib.sha256(clear.encode()).digest() == opaque_digest("ses", clear)
        assert opaque_digest("ref", clear) is None
    for wrong in (
        "",
        "ses_",
        "ses_" + "a" * 42,
        "ses_" + "a" * 44,
        "ses_" + "ä" * 43,
        "a" * 43,
        "ses_" + "a" * 42 + "\n",
    ):
        assert opaque_digest("ses", wrong) is None
    for prefix in ("", "S", "a", "se_s", "x" * 13):
        with pytest.raises(ValueError, match="no prefix"):
            new_opaque(prefix)
