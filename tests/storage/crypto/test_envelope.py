"""Sealed values: a published vector, round trips, and that nothing opens which is not exactly what was sealed, where it
was sealed.
"""

import hashlib
import hmac
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.crypto import envelope
from storage.crypto.blind import blind_index
from storage.crypto.envelope import DataKey, Tampered, aad_of, key_id_of, open_, seal, unwrap, wrap

KEY = DataKey(UUID(int=7), bytes(range(32)))
TENANT, OTHER, ROW = UUID(int=1), UUID(int=2), UUID(int=3)
AAD = aad_of(TENANT, "notes.text", ROW)

# McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16: AES-256, 96-bit nonce, with associated data.
GCM_KEY = bytes.fromhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
GCM_NONCE = bytes.fromhex("cafebabefacedbaddecaf888")
GCM_AAD = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
GCM_PLAIN = bytes.fromhex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
)
GCM_SEALED = bytes.fromhex(
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
    "76fc6ece0f4e1768cddf8853bb2d551b"
)


def test_the_cipher_is_the_one_of_the_standard() -> None:
    assert DataKey(UUID(int=1), GCM_KEY).aead.encrypt(GCM_NONCE, GCM_PLAIN, GCM_AAD) == GCM_SEALED


def test_the_format_can_be_read_with_cryptography_alone() -> None:
    blob = seal(KEY, AAD, b"hello")
    assert (blob[0], blob[1:17], len(blob)) == (1, KEY.id.bytes, 45 + 5)
    aad = blob[:17] + f"{TENANT}|notes.text|{ROW}".encode()
    assert AESGCM(KEY.secret).decrypt(blob[17:29], blob[29:], aad) == b"hello"


def test_a_stored_value_of_the_first_version_still_opens() -> None:
    """Built by hand from the documented format: a change of it would leave old rows unreadable."""
    header = b"\x01" + KEY.id.bytes
    nonce = bytes(range(12))
    blob = header + nonce + AESGCM(KEY.secret).encrypt(nonce, b"old", header + AAD)
    assert blob.hex().startswith("0100000000000000000000000000000007000102030405060708090a0b")
    assert open_(KEY, AAD, blob) == b"old"


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=300), st.uuids(), st.uuids())
def test_what_was_sealed_opens(plain: bytes, tenant: UUID, row: UUID) -> None:
    aad = aad_of(tenant, "a.b", row)
    blob = seal(KEY, aad, plain)
    assert open_(KEY, aad, blob) == plain
    assert key_id_of(blob) == KEY.id
    assert seal(KEY, aad, plain) != blob


def test_a_flip_of_any_bit_is_found() -> None:
    blob = seal(KEY, AAD, b"exactly this")
    for bit in range(len(blob) * 8):
        changed = bytearray(blob)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Tampered):
            open_(KEY, AAD, bytes(changed))


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=80), st.data())
def test_a_cut_or_longer_value_is_found(plain: bytes, data: st.DataObject) -> None:
    blob = seal(KEY, AAD, plain)
    cut = data.draw(st.integers(0, len(blob) - 1))
    for changed in (blob[:cut], blob + b"\0", b""):
        with pytest.raises(Tampered):
            open_(KEY, AAD, changed)


@pytest.mark.parametrize(
    "aad",
    [
        aad_of(OTHER, "notes.text", ROW),
        aad_of(TENANT, "notes.title", ROW),
        aad_of(TENANT, "leads.text", ROW),
        aad_of(TENANT, "notes.text", OTHER),
        b"",
    ],
)
def test_another_tenant_column_or_row_does_not_open_it(aad: bytes) -> None:
    with pytest.raises(Tampered):
        open_(KEY, aad, seal(KEY, AAD, b"secret"))


def test_another_key_does_not_open_it() -> None:
    for key in (DataKey(KEY.id, bytes(32)), DataKey(UUID(int=8), KEY.secret)):
        with pytest.raises(Tampered):
            open_(key, AAD, seal(KEY, AAD, b"secret"))


names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}\.[a-z_][a-z0-9_]{0,8}", fullmatch=True)


@settings(deadline=None)  # the machine may be busy
@given(st.tuples(st.uuids(), names, st.uuids()), st.tuples(st.uuids(), names, st.uuids()))
def test_no_two_places_share_their_associated_data(
    one: tuple[UUID, str, UUID], two: tuple[UUID, str, UUID]
) -> None:
    assert (aad_of(*one) == aad_of(*two)) == (one == two)


@pytest.mark.parametrize("column", ["notes", "notes.text|x", "Notes.text", "a.b.c", "a. b", "", "a.b\n"])
def test_a_column_is_named_with_its_table(column: str) -> None:
    with pytest.raises(ValueError, match="not a table"):
        aad_of(TENANT, column, ROW)


def test_a_wrapped_key_unwraps_for_its_owner_only() -> None:
    child = DataKey.generate()
    subject = uuid4()
    blob = wrap(KEY, child, TENANT, "thread", subject)
    assert unwrap(KEY, blob, TENANT, "thread", subject, child.id).secret == child.secret
    assert child.secret not in blob
    for owner in (
        (OTHER, "thread", subject, child.id),
        (TENANT, "contact", subject, child.id),
        (TENANT, "thread", uuid4(), child.id),
        (TENANT, "thread", subject, uuid4()),
    ):
        with pytest.raises(Tampered):
            unwrap(KEY, blob, *owner)


def test_a_wrapped_key_does_not_pass_for_a_value() -> None:
    child = DataKey.generate()
    with pytest.raises(Tampered):
        open_(
            KEY,
            aad_of(TENANT, "data_keys.wrapped", child.id),
            wrap(KEY, child, TENANT, "tenant", TENANT),
        )


def test_a_key_shows_nothing_of_itself() -> None:
    assert repr(KEY) == "DataKey(00000000-0000-0000-0000-000000000007)"
    with pytest.raises(ValueError, match="32 bytes"):
        DataKey(UUID(int=1), b"short")


def test_no_sealed_value_has_no_key_id() -> None:
    for blob in (b"", b"plain text", b"\x02" + bytes(60), b"\x01" + bytes(envelope.OVERHEAD - 2)):
        with pytest.raises(Tampered):
            key_id_of(blob)


def test_a_blind_index_is_a_cut_hmac_of_kind_and_value() -> None:
    secret = bytes(range(32))
    expected = hmac.new(secret, b"email\0ada@example.org", hashlib.sha256).digest()[:16]
    assert blind_index(secret, "email", "ada@example.org") == expected
    others = {
        blind_index(secret, "phone", "ada@example.org"),
        blind_index(secret, "email", "bob@example.org"),
        blind_index(bytes(32), "email", "ada@example.org"),
    }
    assert len(others | {expected}) == 4
    with pytest.raises(ValueError, match="zero byte"):
        blind_index(secret, "a\0b", "c")
