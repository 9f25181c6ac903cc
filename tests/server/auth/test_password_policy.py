"""The table of passwords that are and are not taken (ASVS 5.0 V6.2)."""

import hashlib

import httpx
import pytest

from server.auth.data.make_common_passwords import packed
from server.auth.password_policy import (
    BREACHED,
    COMMON_FILE,
    PREFIX_BYTES,
    BreachedPasswords,
    PasswordPolicy,
    is_common,
)

GOOD = "kettle mango 7 drifts sideways"
CONTEXT = ("erika.mustermann@hotel-alpenblick.example", "Erika Mustermann", "Hotel Alpenblick")


@pytest.mark.parametrize(
    ("password", "codes"),
    [
        (GOOD, []),
        ("vZ8#qLw2!kTx", []),
        ("пять лошадей под луной", []),
        ("horse 鍵盤 теплый Ωμέγα", []),
        ("correcthorsebatterystaple", []),
        ("vZ8#qLw2!kT", ["PASSWORD_TOO_SHORT"]),
        ("a1b2", ["PASSWORD_TOO_SHORT", "PASSWORD_GUESSABLE"]),
        ("", ["PASSWORD_TOO_SHORT", "PASSWORD_GUESSABLE"]),
        ("\ufb03" * 3 + "vZ8", ["PASSWORD_GUESSABLE"]),  # three ligatures are nine letters
        ("kettle mango " + "7 drifts sideways " * 6 + "mangolos", ["PASSWORD_TOO_LONG"]),
        ("vZ8#qLw2" * 16, []),
        ("x" * 100_000, ["PASSWORD_TOO_LONG"]),
        ("\ufdfa" * 128, ["PASSWORD_TOO_LONG"]),  # one character that becomes eighteen
        ("kettle mango \ud800 drifts", ["PASSWORD_NO_TEXT"]),
        ("password12345", ["PASSWORD_COMMON", "PASSWORD_GUESSABLE"]),
        ("P4ssw0rd!!!!", ["PASSWORD_COMMON", "PASSWORD_GUESSABLE"]),
        ("photosynthesis", ["PASSWORD_COMMON", "PASSWORD_GUESSABLE"]),
        ("aaaaaaaaaaaaaaaa", ["PASSWORD_GUESSABLE"]),
        ("ErikaMustermann24", ["PASSWORD_CONTEXT", "PASSWORD_GUESSABLE"]),
        ("h0tel-4lpenbl1ck!", ["PASSWORD_CONTEXT"]),
        ("Alpenblick and nine purple kettles", []),
    ],
)
async def test_the_table(password: str, codes: list[str]) -> None:
    policy = PasswordPolicy()
    verdict = await policy.check(password, CONTEXT)
    assert sorted(reason.code for reason in verdict.reasons) == sorted(codes)
    assert all(reason.sentence.endswith(".") for reason in verdict.reasons)
    assert verdict.breach_check == "off"
    policy.close()


def test_128_characters_are_the_most() -> None:
    assert len("vZ8#qLw2" * 16) == 128


def test_the_bundled_list_is_what_its_readme_says() -> None:
    content = COMMON_FILE.read_bytes()
    prefixes = [content[at : at + PREFIX_BYTES] for at in range(0, len(content), PREFIX_BYTES)]
    assert len(prefixes) == 93_855
    assert prefixes == sorted(set(prefixes))
    assert "93,855 entries" in (COMMON_FILE.parent / "README.md").read_text()
    assert packed(["Password", "password", "qwertyuiop"]) == b"".join(
        sorted(hashlib.sha1(word).digest()[:5] for word in (b"password", b"qwertyuiop"))
    )


@pytest.mark.parametrize(
    ("password", "common"),
    [("qwertyuiop", True), ("QWERTYUIOP", True), ("1qwertyuiop!", True), ("qwertyuiop" + "8361940275", True),
     ("qwertyuiop" + "83619402751", False), ("kettlemangodrifts", False)],
)  # fmt: skip
def test_a_listed_word_with_something_hung_on_is_still_listed(password: str, common: bool) -> None:
    assert is_common(password) is common


def service(answer: httpx.Response | Exception, seen: list[httpx.Request]) -> httpx.AsyncClient:
    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return httpx.AsyncClient(transport=httpx.MockTransport(handle), base_url="https://breaches.example/")


async def check(
    answer: httpx.Response | Exception, password: str = GOOD
) -> tuple[list[str], str, list[httpx.Request]]:
    seen: list[httpx.Request] = []
    async with service(answer, seen) as client:
        policy = PasswordPolicy(BreachedPasswords(client))
        verdict = await policy.check(password, CONTEXT)
        policy.close()
    return [reason.code for reason in verdict.reasons], verdict.breach_check, seen


async def test_the_breach_service_sees_five_digits_of_the_hash_and_is_believed() -> None:
    digest = hashlib.sha1(GOOD.encode()).hexdigest().upper()
    listed = f"{'0' * 35}:3\r\n{digest[5:]}:17\r\n"
    codes, state, seen = await check(httpx.Response(200, text=listed))
    assert (codes, state) == ([BREACHED.code], "done")
    assert [request.url.path for request in seen] == [f"/range/{digest[:5]}"]
    assert seen[0].headers["add-padding"] == "true"
    padding = f"{digest[5:]}:0\r\n"
    assert (await check(httpx.Response(200, text=padding)))[:2] == ([], "done")
    assert (await check(httpx.Response(200, text="")))[:2] == ([], "done")


async def test_without_the_breach_service_a_good_password_is_taken_and_that_is_told() -> None:
    digest = hashlib.sha1(GOOD.encode()).hexdigest().upper()
    for answer in (
        httpx.ConnectTimeout("slow"),
        httpx.Response(503),
        httpx.Response(200, text=f"{digest[5:]}:many"),
    ):
        assert (await check(answer))[:2] == ([], "failed")


async def test_the_breach_service_is_not_asked_about_a_bad_password() -> None:
    codes, state, seen = await check(httpx.Response(200, text=""), "password12345")
    assert ("PASSWORD_COMMON" in codes, state, seen) == (True, "off", [])
