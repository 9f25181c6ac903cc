"""Names for devices and countries for addresses."""

import pytest

from server.auth.devices import country_of, device_name

CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.5 Mobile/15E148 Safari/604.1"
)


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0", "Firefox 130 on Linux"),
        (CHROME, "Chrome 128 on Windows 10"),
        (SAFARI, "Mobile Safari 17 on iOS 17"),
        ("curl/8.5.0", "curl 8"),
        ("", "unknown device"),
        (None, "unknown device"),
        ("\x00<script>alert(1)</script>" * 1000, "unknown device"),
    ],
)
def test_device_names(user_agent: str | None, name: str) -> None:
    assert device_name(user_agent) == name


@pytest.mark.parametrize(
    ("ip", "country"),
    [
        ("8.8.8.8", "US"),
        ("::ffff:8.8.8.8", "US"),
        ("2001:4860:4860::8888", "US"),
        ("2a01:4f8::1", "DE"),
        ("10.1.1.1", "unknown"),
        ("127.0.0.1", "unknown"),
        ("::1", "unknown"),
        ("fe80::1%eth0", "unknown"),
        ("somewhere", "unknown"),
        (None, "unknown"),
    ],
)
def test_countries(ip: str | None, country: str) -> None:
    assert country_of(ip) == country
