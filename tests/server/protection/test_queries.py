"""The query string: nothing twice, and times as RFC 3339 writes them."""

from urllib.parse import quote

import httpx
import msgspec
import pytest

from server.api.fields import Email, Name, Slug

CONTACTS = "/api/v1/crm/contacts"


@pytest.mark.parametrize(
    "time", ["2026-01-31T09:00:00Z", "2026-01-31T09:00:00.123456+01:00", "2026-01-31t09:00:00z"]
)
async def test_a_time_with_its_offset_is_one(
    client: httpx.AsyncClient, staff: dict[str, str], time: str
) -> None:
    assert (await client.get(f"{CONTACTS}?before={quote(time)}", headers=staff)).status_code == 200


# The decoder would take the first five; for the last of them, and the year 10000, it would even break.
@pytest.mark.parametrize(
    "time", ["0", "0.5", "-1", "1e3", "2026-01-31T09:00:00", "253402300800", "", "nan", "2026-01-31", "x\x00"]
)
async def test_anything_else_is_refused(client: httpx.AsyncClient, staff: dict[str, str], time: str) -> None:
    answer = await client.get(f"{CONTACTS}?before={quote(time)}", headers=staff)
    assert (answer.status_code, answer.json()["error"]["details"]) == (400, {"field": "before"})


@pytest.mark.parametrize("query", ["limit=1&limit=2", "limit=1&limit=1", "x=1&x=2", "limit=1&x=&x="])
async def test_a_parameter_is_given_once(
    client: httpx.AsyncClient, staff: dict[str, str], query: str
) -> None:
    answer = await client.get(f"{CONTACTS}?{query}", headers=staff)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "A parameter of the address is given more than once."


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Name, "x\n"), (Name, "\x00"), (Name, "a\x1bb"), (Name, "\x1e"), (Name, "a\x85"), (Name, " "), (Name, "\ufeff"),
        (Email, "a@b.example\n"), (Email, "a\x85@b.example"), (Email, "a@b"), (Slug, "acme\n"),
    ],
)  # fmt: skip
def test_no_control_character_comes_in_with_a_line(kind: type, text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, kind)


@pytest.mark.parametrize(
    ("kind", "text"), [(Name, " Zoë  O’Neil "), (Email, "zoë.o'neil@müller.example"), (Slug, "a-b-1")]
)
def test_what_people_are_called_does(kind: type, text: str) -> None:
    assert msgspec.convert(text, kind) == text
