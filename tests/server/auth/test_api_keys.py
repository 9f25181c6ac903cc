"""Keys for programs: form, check part, digest, networks."""

import re
import zlib

import pytest

from server.auth.api_keys import PATTERN, ApiKeys, ip_allowed, parse_networks, prefix_of
from storage.errors import ValidationFailed

SECRET, OLD = "s" * 40, "o" * 40


def test_a_key_has_its_form_and_scanners_find_it() -> None:
    made = [ApiKeys(SECRET).new() for _ in range(50)]
    assert len({key.clear for key in made}) == len({key.digest for key in made}) == 50
    for key in made:
        assert re.fullmatch(r"sec_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", key.clear)
        assert re.findall(PATTERN, f'KEY="{key.clear}", and {key.clear}.') == [key.clear] * 2
        assert prefix_of(key.clear) == key.prefix == key.clear[9:17]
        assert len(key.digest) == 32
        assert key.clear.encode() not in key.digest


def test_the_check_part_is_the_crc32_in_base62() -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    clear = ApiKeys(SECRET).new().clear
    number = 0
    for character in clear[-6:]:
        number = number * 62 + digits.index(character)
    assert number == zlib.crc32(clear[:-6].encode())


def test_a_single_wrong_character_is_seen_without_the_database() -> None:
    clear = ApiKeys(SECRET).new().clear
    for at in range(len("sec_live_"), len(clear)):
        wrong = clear[:at] + ("A" if clear[at] != "A" else "B") + clear[at + 1 :]
        assert prefix_of(wrong) is None
    for wrong in (
        "",
        clear[:-1],
        clear + "0",
        clear.replace("live", "test"),
        clear + "\n",
        "\ud800" + clear[1:],
    ):
        assert prefix_of(wrong) is None


def test_the_digest_fits_its_key_under_its_secret_alone() -> None:
    keys = ApiKeys(SECRET)
    key, other = keys.new(), keys.new()
    assert keys.verify(key.clear, key.digest) is True
    assert keys.verify(other.clear, key.digest) is False
    assert keys.verify(key.clear[:-1], key.digest) is False
    assert ApiKeys(OLD).verify(key.clear, key.digest) is False
    assert keys.renewed(key.clear, key.digest) is None


def test_after_a_change_of_the_secret_old_keys_work_and_are_stored_anew() -> None:
    key, rotated = ApiKeys(OLD).new(), ApiKeys(SECRET, previous=(OLD,))
    assert rotated.verify(key.clear, key.digest) is True
    renewed = rotated.renewed(key.clear, key.digest)
    assert renewed is not None
    assert ApiKeys(SECRET).verify(key.clear, renewed) is True


@pytest.mark.parametrize(
    ("ip", "networks", "allowed"),
    [
        ("192.0.2.7", [], True),
        ("192.0.2.7", ["192.0.2.0/24"], True),
        ("192.0.3.7", ["192.0.2.0/24"], False),
        ("192.0.3.7", ["192.0.2.0/24", "192.0.3.7/32"], True),
        ("::ffff:192.0.2.7", ["192.0.2.0/24"], True),
        ("2001:db8::1", ["2001:db8::/32"], True),
        ("2001:db8::1", ["0.0.0.0/0"], False),
        ("somewhere", ["0.0.0.0/0", "::/0"], False),
        ("", ["0.0.0.0/0"], False),
    ],
)
def test_networks(ip: str, networks: list[str], allowed: bool) -> None:
    assert ip_allowed(ip, networks) is allowed


def test_networks_are_read_strictly() -> None:
    assert parse_networks([" 192.0.2.7 ", "2001:0DB8::/32", "192.0.2.7/32"]) == [
        "192.0.2.7/32",
        "2001:db8::/32",
    ]
    for wrong in ("192.0.2.7/24", "192.0.2", "0x7f.1", "evil", "", "10.0.0.0/33"):
        with pytest.raises(ValidationFailed) as refused:
            parse_networks(["192.0.2.0/24", wrong])
        assert refused.value.details == {"position": 1}
    with pytest.raises(ValidationFailed):
        parse_networks(["192.0.2.7"] * 51)
