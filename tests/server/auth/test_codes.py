"""Codes of authenticator apps and recovery codes."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest

from server.auth import recovery, totp

# RFC 6238, appendix B, SHA-1, the last six of the eight digits
RFC_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
    ],
)
def test_the_standards_own_values(seconds: int, code: str) -> None:
    assert totp.verify(RFC_SECRET, code, datetime.fromtimestamp(seconds, UTC), None) == seconds // 30


def test_one_step_to_each_side_and_no_more() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    secret, step = totp.new_secret(), int(now.timestamp()) // 30
    assert len(secret) == 32
    found = [
        totp.verify(secret, pyotp.TOTP(secret).at(now, counter_offset=offset), now, None)
        for offset in range(-2, 3)
    ]
    assert found == [None, step - 1, step, step + 1, None]


def test_a_used_step_and_those_before_it_are_refused() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    secret, step = totp.new_secret(), int(now.timestamp()) // 30
    code = pyotp.TOTP(secret).at(now)
    assert totp.verify(secret, code, now, step - 1) == step
    assert totp.verify(secret, code, now, step) is None
    assert totp.verify(secret, code, now, step + 1) is None
    assert totp.verify(secret, pyotp.TOTP(secret).at(now, counter_offset=-1), now, step) is None
    assert totp.verify(secret, code, now + timedelta(minutes=2), None) is None


def test_what_is_no_code_is_refused_and_spaces_do_not_matter() -> None:
    now = datetime.fromtimestamp(59, UTC)
    assert totp.verify(RFC_SECRET, " 287 082 ", now, None) == 1
    for wrong in (
        "",
        "28708",
        "2870822",
        "abcdef",
        "٢٨٧٠٨٢",
        "２８７０８２",
        "287082\x00",
        "-87082",
        "2" * 100_000,
    ):
        assert totp.verify(RFC_SECRET, wrong, now, None) is None
    assert (
        totp.verify(RFC_SECRET, "000000", datetime.fromtimestamp(0, UTC), None) is None
    )  # no step before the first


def test_the_address_for_the_app() -> None:
    parts = urlsplit(totp.provisioning_uri(RFC_SECRET, "erika@example.com", "AI Secretary"))
    assert (parts.scheme, parts.netloc, parts.path) == (
        "otpauth",
        "totp",
        "/AI%20Secretary:erika%40example.com",
    )
    assert parse_qs(parts.query) == {"secret": [RFC_SECRET], "issuer": ["AI Secretary"]}


def test_ten_codes_of_120_bit_that_differ() -> None:
    codes = recovery.new_codes()
    assert len({code.clear for code in codes}) == len({code.digest for code in codes}) == 10
    for code in codes:
        assert [len(group) for group in code.clear.split("-")] == [4] * 6
        assert set(code.clear) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")
        assert code.digest == recovery.digest_of(code.clear)
        assert len(code.digest) == 32


def test_a_code_is_read_as_people_type_it() -> None:
    digest = recovery.digest_of("0123-4567-89AB-CDEF-GHJK-1111")
    assert digest is not None
    assert recovery.digest_of(" o123 4567 89ab cdef–ghjk iLl1\n") == digest
    for wrong in ("", "0123", "0123-4567-89AB-CDEF-GHJK-111", "0123-4567-89AB-CDEF-GHJK-111U", "0" * 100_000):
        assert recovery.digest_of(wrong) is None
