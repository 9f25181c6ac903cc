"""Passkeys: WebAuthn level 2 by the library webauthn. The person must have been verified by the device (PIN, finger,
face), so a passkey is two factors. Challenges are the caller's to store, for one use and a few minutes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import webauthn
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AttestationConveyancePreference,
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from storage.errors import Unauthenticated, ValidationFailed

CHALLENGE_SECONDS = 300
_ALGORITHMS = [
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]
# What the library lets through of parsers below it, for input that no authenticator makes.
_MALFORMED = (WebAuthnException, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)


@dataclass(frozen=True)
class Ceremony:
    """``options`` go to the browser as they are; ``challenge`` is stored until the answer comes."""

    options: dict[str, Any]
    challenge: bytes


@dataclass(frozen=True)
class Passkey:
    """A passkey to store.

    Attributes:
        public_key: in COSE form.
        aaguid: the model of the authenticator; zeros where it does not say.
        synced: whether the key is copied to the person's other devices.
    """

    credential_id: bytes
    public_key: bytes
    sign_count: int
    aaguid: str
    synced: bool


class Passkeys:
    """The relying party.

    Args:
        rp_id: the host name, without scheme and port.
        rp_name: shown by the browser.
        origins: from which answers are accepted, such as ``https://app.example``.
    """

    def __init__(self, rp_id: str, rp_name: str, origins: Sequence[str]) -> None:
        self._rp_id = rp_id
        self._rp_name = rp_name
        self._origins = list(origins)

    def start_registration(
        self, user_handle: bytes, account: str, display_name: str, existing: Sequence[bytes] = ()
    ) -> Ceremony:
        """Options for ``navigator.credentials.create``.

        Args:
            user_handle: at most 64 bytes, says nothing about the person (WebAuthn 14.6.1), such as the account's id.
            existing: ids of the account's passkeys: no device is registered twice.
        """
        made = webauthn.generate_registration_options(
            rp_id=self._rp_id,
            rp_name=self._rp_name,
            user_id=user_handle,
            user_name=account,
            user_display_name=display_name,
            timeout=CHALLENGE_SECONDS * 1000,
            attestation=AttestationConveyancePreference.NONE,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=one) for one in existing],
            supported_pub_key_algs=_ALGORITHMS,
        )
        return Ceremony(json.loads(webauthn.options_to_json(made)), made.challenge)

    def finish_registration(self, answer: Mapping[str, Any], challenge: bytes) -> Passkey:
        """The passkey that the browser's answer brings.

        Raises:
            ValidationFailed: it does not answer this challenge from our page with the person verified.
        """
        try:
            verified = webauthn.verify_registration_response(
                credential=dict(answer),
                expected_challenge=challenge,
                expected_rp_id=self._rp_id,
                expected_origin=self._origins,
                require_user_verification=True,
                supported_pub_key_algs=_ALGORITHMS,
            )
        except _MALFORMED as error:
            raise ValidationFailed("The passkey could not be registered. Start again.") from error
        return Passkey(
            verified.credential_id,
            verified.credential_public_key,
            verified.sign_count,
            verified.aaguid,
            verified.credential_backed_up,
        )

    def start_authentication(self, allowed: Sequence[bytes] = ()) -> Ceremony:
        """Options for ``navigator.credentials.get``.

        Args:
            allowed: ids of the account's passkeys; none lets the browser offer those it has for this host.
        """
        made = webauthn.generate_authentication_options(
            rp_id=self._rp_id,
            timeout=CHALLENGE_SECONDS * 1000,
            allow_credentials=[PublicKeyCredentialDescriptor(id=one) for one in allowed],
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return Ceremony(json.loads(webauthn.options_to_json(made)), made.challenge)

    def finish_authentication(
        self, answer: Mapping[str, Any], challenge: bytes, public_key: bytes, sign_count: int
    ) -> int:
        """The sign count to store.

        Args:
            answer: of the browser; the caller found the passkey by ``credential_id`` of it, and checked that it
                belongs to the account.
            public_key: of the stored passkey.
            sign_count: of the stored passkey.

        Raises:
            Unauthenticated: it does not answer this challenge from our page with this key and the person verified,
                or the count went back, which means that the key was copied.
        """
        try:
            verified = webauthn.verify_authentication_response(
                credential=dict(answer),
                expected_challenge=challenge,
                expected_rp_id=self._rp_id,
                expected_origin=self._origins,
                credential_public_key=public_key,
                credential_current_sign_count=sign_count,
                require_user_verification=True,
            )
        except _MALFORMED as error:
            raise Unauthenticated("The passkey was not accepted. Try again.") from error
        return verified.new_sign_count


def credential_id(answer: Mapping[str, Any]) -> bytes | None:
    """The id by which the stored passkey is found; None where the answer has none."""
    text = answer.get("id")
    if not isinstance(text, str) or not text or len(text) > 2048:
        return None
    try:
        return webauthn.base64url_to_bytes(text)
    except ValueError:
        return None


def user_handle(answer: Mapping[str, Any]) -> bytes | None:
    """The account that the device names, for signing in without a name; None where it names none. It must be the
    one that the passkey is stored for.
    """
    response = answer.get("response")
    text = response.get("userHandle") if isinstance(response, Mapping) else None
    if not isinstance(text, str) or not text or len(text) > 128:
        return None
    try:
        return webauthn.base64url_to_bytes(text)
    except ValueError:
        return None
