"""Passkeys with a device in software whose answers the real library checks."""

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.auth.passkeys import Ceremony, Passkey, Passkeys, credential_id, user_handle
from storage.errors import Unauthenticated, ValidationFailed
from tests.support.authenticator import Authenticator, b64

PASSKEYS = Passkeys("app.example", "AI Secretary", ["https://app.example"])
HANDLE = b"account-1"


def registered(device: Authenticator) -> Passkey:
    ceremony = PASSKEYS.start_registration(HANDLE, "erika@example.com", "Erika")
    return PASSKEYS.finish_registration(device.create(ceremony.options), ceremony.challenge)


def authenticate(device: Authenticator, passkey: Passkey, ceremony: Ceremony | None = None) -> int:
    ceremony = ceremony or PASSKEYS.start_authentication([passkey.credential_id])
    answer = device.get(ceremony.options)
    return PASSKEYS.finish_authentication(answer, ceremony.challenge, passkey.public_key, passkey.sign_count)


def test_options_ask_for_a_verified_person_and_no_attestation() -> None:
    ceremony = PASSKEYS.start_registration(HANDLE, "erika@example.com", "Erika", [b"one", b"two"])
    options = ceremony.options
    assert options["rp"] == {"name": "AI Secretary", "id": "app.example"}
    assert options["user"] == {"id": b64(HANDLE), "name": "erika@example.com", "displayName": "Erika"}
    assert options["attestation"] == "none"
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert [kind["alg"] for kind in options["pubKeyCredParams"]] == [-7, -8, -257]
    assert [one["id"] for one in options["excludeCredentials"]] == [b64(b"one"), b64(b"two")]
    assert options["challenge"] == b64(ceremony.challenge)
    assert len(ceremony.challenge) >= 16
    wanted = PASSKEYS.start_authentication([b"one"]).options
    assert (wanted["rpId"], wanted["userVerification"]) == ("app.example", "required")
    assert [one["id"] for one in wanted["allowCredentials"]] == [b64(b"one")]


def test_registering_and_signing_in() -> None:
    device = Authenticator(synced=True)
    passkey = registered(device)
    assert (passkey.credential_id, passkey.sign_count, passkey.synced) == (device.credential_id, 0, True)
    assert passkey.aaguid == "00000000-0000-0000-0000-000000000000"
    assert authenticate(device, passkey) == 1
    assert authenticate(device, passkey) == 2
    answer = device.get(PASSKEYS.start_authentication().options)
    assert (credential_id(answer), user_handle(answer)) == (device.credential_id, HANDLE)


@pytest.mark.parametrize(
    "device",
    [
        Authenticator(origin="https://app.example.evil"),
        Authenticator(origin="http://app.example"),
        Authenticator(rp_id="evil.example"),
        Authenticator(verifies=False),
    ],
    ids=["origin", "scheme", "rp", "unverified"],
)
def test_a_registration_from_elsewhere_or_without_verification_is_refused(device: Authenticator) -> None:
    with pytest.raises(ValidationFailed, match="could not be registered"):
        registered(device)


@pytest.mark.parametrize(
    "change",
    [{"origin": "https://evil.example"}, {"rp_id": "evil.example"}, {"verifies": False}],
    ids=["origin", "rp", "unverified"],
)
def test_an_answer_from_elsewhere_or_without_verification_is_refused(change: dict[str, Any]) -> None:
    device = Authenticator()
    passkey = registered(device)
    for name, value in change.items():
        setattr(device, name, value)
    with pytest.raises(Unauthenticated, match="was not accepted"):
        authenticate(device, passkey)


def test_an_answer_to_another_challenge_is_refused() -> None:
    device = Authenticator()
    passkey = registered(device)
    old, new = PASSKEYS.start_authentication(), PASSKEYS.start_authentication()
    assert old.challenge != new.challenge
    answer = device.get(old.options)
    with pytest.raises(Unauthenticated):
        PASSKEYS.finish_authentication(answer, new.challenge, passkey.public_key, passkey.sign_count)
    created = PASSKEYS.start_registration(HANDLE, "e", "E")
    with pytest.raises(ValidationFailed):
        PASSKEYS.finish_registration(device.create(created.options), old.challenge)
    with pytest.raises(Unauthenticated):  # an answer of the other ceremony, signed or not
        PASSKEYS.finish_authentication(
            device.create(created.options), created.challenge, passkey.public_key, 0
        )


@pytest.mark.parametrize("stored", [5, 6])
def test_a_count_that_does_not_grow_means_a_copied_key(stored: int) -> None:
    device = Authenticator(sign_count=4)
    passkey = registered(device)
    ceremony = PASSKEYS.start_authentication()
    with pytest.raises(Unauthenticated):
        PASSKEYS.finish_authentication(
            device.get(ceremony.options), ceremony.challenge, passkey.public_key, stored
        )


def test_devices_that_do_not_count_work() -> None:
    device = Authenticator()
    passkey = registered(device)
    device.sign_count = -1
    assert authenticate(device, passkey) == 0


def test_another_key_and_a_changed_answer_are_refused() -> None:
    device, other = Authenticator(), Authenticator()
    passkey, ceremony = registered(device), PASSKEYS.start_authentication()
    registered(other)
    answer = other.get(ceremony.options)
    with pytest.raises(Unauthenticated):
        PASSKEYS.finish_authentication(answer, ceremony.challenge, passkey.public_key, 0)
    answer = device.get(ceremony.options)
    data = bytearray(base64.urlsafe_b64decode(answer["response"]["authenticatorData"] + "=="))
    data[-1] += 1
    answer["response"]["authenticatorData"] = b64(bytes(data))
    with pytest.raises(Unauthenticated):
        PASSKEYS.finish_authentication(answer, ceremony.challenge, passkey.public_key, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]
DEVICE = Authenticator()
KEPT = registered(DEVICE)


@given(st.sampled_from(["id", "rawId", "type", "response"]), st.sampled_from(FIELDS), JSON, st.booleans())
@settings(max_examples=60, deadline=None)
def test_whatever_is_sent_is_refused_with_our_error(top: str, field: str, value: Any, inside: bool) -> None:
    create, get = PASSKEYS.start_registration(HANDLE, "e", "E"), PASSKEYS.start_authentication()
    made, got = DEVICE.create(create.options), DEVICE.get(get.options)
    for answer, needed in ((made, FIELDS[:2]), (got, [FIELDS[0], *FIELDS[2:4]])):
        if inside and field not in needed:
            continue
        target = answer["response"] if inside else answer
        target[field if inside else top] = value
        credential_id(answer), user_handle(answer)
        with pytest.raises((ValidationFailed, Unauthenticated)):
            _finish(answer, create if answer is made else None, get)


def _finish(answer: dict[str, Any], create: Ceremony | None, get: Ceremony) -> None:
    if create is not None:
        PASSKEYS.finish_registration(answer, create.challenge)
    else:
        PASSKEYS.finish_authentication(answer, get.challenge, KEPT.public_key, 0)
