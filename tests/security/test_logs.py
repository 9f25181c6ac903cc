"""What stands in the logs, and what never does."""

import ast
import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from litestar import Litestar, get
from litestar.params import FromQuery
from litestar.types import Scope
from sqlalchemy import text as sql

from server.app import create_app
from server.deps import Parts
from server.masking import MASKED, mask_text, masked
from server.protection.refusals import Refusals
from server.telemetry import configure_logging
from tests.server.auth.people import ANOTHER, AUTH, PASSWORD, Device, link, person
from tests.support.edge import opened, signed_in
from tests.support.world import TestTenant, answering, make_visitor

ROOT = Path(__file__).resolve().parents[2]
CONTACTS = "/api/v1/crm/contacts"


class Log:
    """All lines since the test began."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.split("\n") if line]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """The service's logging into a text, at its most talkative; loggers that were bound before write there too."""
    found = Log()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logging("DEBUG", found.stream)
    for name in ("sqlalchemy", "asyncio", "psycopg", "litestar", "faker"):
        logging.getLogger(name).setLevel(logging.INFO)
    for logger in loggers():
        monkeypatch.setattr(logger.module, "log", structlog.get_logger(logger.name))
    yield found
    configure_logging("WARNING")
    root.handlers, root.level = handlers, level


class Bound:
    def __init__(self, module: Any, name: str) -> None:
        self.module, self.name = module, name


def loggers() -> list[Bound]:
    """Structlog keeps a logger as it was configured at its first use: each module's is made anew."""
    ours = ("server.", "agents.", "graphs.", "ingest.", "storage.", "tools.")
    found = [(name, module) for name, module in list(sys.modules.items()) if name.startswith(ours)]
    return [
        Bound(module, name)
        for name, module in found
        if hasattr(module, "log") and hasattr(module.log, "bind")
    ]


async def test_nothing_that_people_say_or_show_stands_in_the_logs(
    log: Log, parts: Parts, tenant: TestTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run through what people do, the failures included, with everything that was said and shown looked for afterwards."""

    @get("/breaks", opt={"public": True})
    async def breaks(password: FromQuery[str]) -> str:
        raise RuntimeError(
            f"could not send to anna.berg@mail.example with password={password}, cookie: sid_{'aB3' * 15}"
        )

    app = create_app(parts)
    app.register(breaks)
    said = [
        PASSWORD,
        ANOTHER,
        "anna.berg@mail.example",
        "a wrong password of mine",
        "my bicycle has a purple frame",
        "sid_" + "aB3" * 15,
    ]
    async with opened(app):
        pat = await person(parts, tenant, "owner")
        device = Device(app)
        await device.login(pat.email, "a wrong password of mine")
        await device.login(pat.email, kind="browser")
        said += [pat.email, *device.cookies.values()]
        said += await device.set_up_totp()
        said += [device.secret, device.code(-1)]
        challenge = (await Device(app).login(pat.email)).json()["challenge"]
        said.append(challenge)
        other = Device(app)
        await other.second(challenge, code="000000")
        other.secret = device.secret
        await other.second(challenge, code=other.code())
        said += [str(other.token), str(other.refresh), other.code()]
        for token in ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.", "sec_live_abcdefgh_" + "A1b2" * 12):
            stranger = Device(app, token=token)
            await stranger.get(f"{AUTH}/me")
            said.append(token)
        await other.post(f"{AUTH}/refresh", {"refresh_token": str(other.refresh)})
        await other.post(f"{AUTH}/password/forgotten", {"email": pat.email})
        token = await link(parts, "reset_password", pat.email)
        said.append(token)
        await other.post(f"{AUTH}/password/reset", {"token": token, "password": ANOTHER})
        staff = Device(app, token=signed_in(app, tenant)["authorization"].removeprefix("Bearer "))
        await staff.post(
            CONTACTS, {"email": "anna.berg@mail.example", "name": "Anna", "phone": "+43 660 1234567"}
        )
        await staff.post(CONTACTS, {"email": "no address of anna.berg@mail.example"})
        await staff.get("/breaks?password=a+wrong+password+of+mine")
        visitor = await make_visitor(parts, tenant)
        await visitor.write("my bicycle has a purple frame, write to anna.berg@mail.example")
        async with answering(parts) as job:
            await job.drain(tenant.info.id, visitor.thread_id)
    assert len(log.lines) > 8
    assert {line["event"] for line in log.lines} >= {"request_refused", "sign_in_failed", "request_failed"}
    flat = " ".join(log.text.split())
    for secret in (*said, "+43 660 1234567", "1234567"):
        assert secret not in flat, f"{secret!r} stands in the logs"
    assert "[masked:email]" in flat
    assert "RuntimeError" in flat


async def test_a_refusal_leaves_its_line(
    log: Log, parts: Parts, tenant: TestTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When, where, who, what: for a missing right, nobody, a wrong input, an unknown address and a method."""
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.0/8")
    app = create_app(parts)
    async with opened(app):
        weak = Device(app, ip="10.1.2.3")
        weak.token = signed_in(app, tenant, ("crm:read",))["authorization"].removeprefix("Bearer ")
        refused = await weak.get("/api/v1/inbox/threads", x_forwarded_for="9.9.9.9, 203.0.113.7")
        await Device(app, ip="203.0.113.8").get("/api/v1/inbox/threads", x_forwarded_for="1.1.1.1")
        await weak.post(CONTACTS, {"email": 7})
        await weak.get("/anna.berg@mail.example/secret")
        await weak.ask("TRACE", "/")
    lines = log.of("request_refused")
    assert [line["status"] for line in lines] == [403, 401, 403, 404, 405]
    first = lines[0]
    assert first["request_id"] == refused.headers["x-request-id"]
    assert first["tenant_id"] == str(tenant.info.id)
    assert first["actor"].startswith("user:")
    assert (first["route"], first["method"], first["code"]) == ("/api/v1/inbox/threads", "GET", "FORBIDDEN")
    # The address behind our own proxy, and what a stranger invents does not count.
    assert (first["address"], lines[1]["address"]) == ("203.0.113.7", "203.0.113.8")
    assert lines[1]["code"] == "UNAUTHENTICATED"
    assert lines[3]["route"] is None
    assert "anna.berg" not in log.text


async def test_sign_ins_are_told_good_and_bad(log: Log, parts: Parts, tenant: TestTenant) -> None:
    app = create_app(parts)
    async with opened(app):
        pat = await person(parts, tenant)
        await Device(app).login(pat.email, "wrong")
        await Device(app).login("nobody@people.example", "wrong")
        device = Device(app)
        await device.login(pat.email)
        await device.set_up_totp()
        again = Device(app)
        challenge = (await again.login(pat.email)).json()["challenge"]
        await again.second(challenge, code="000000")
        again.secret = device.secret
        assert (await again.second(challenge, code=again.code())).status_code == 200
    failed = log.of("sign_in_failed")
    assert [line["step"] for line in failed] == ["password", "password", "second factor"]
    assert (
        failed[0]["whose"] != failed[1]["whose"]
    )  # attempts on one account belong together, without naming it
    assert failed[2]["account_id"] == str(pat.account_id)
    async with parts.database.tenant_session(tenant.context) as session:
        rows = await session.execute(
            sql("select detail from audit_log where action = 'session.opened' order by seq")
        )
        assert [row[0]["amr"] for row in rows] == [["pwd"], ["pwd", "otp"]]


def test_a_flood_of_refusals_does_not_fill_the_disk(log: Log) -> None:
    seconds = [0.0]
    refusals = Refusals((), most=3, clock=lambda: seconds[0])
    scope: Any = {"type": "http", "method": "GET", "state": {}, "client": ("203.0.113.9", 1), "headers": []}
    asked: Scope = scope
    seconds[0] = 1.0
    for _ in range(1000):
        refusals.told(asked, 429)
    seconds[0] = 2.0
    refusals.told(asked, 429)
    assert [line["left_out"] for line in log.of("request_refused")] == [0, 0, 0, 997]


async def test_what_we_did_not_foresee_is_told_without_its_values(log: Log, parts: Parts) -> None:
    @get("/breaks", opt={"public": True})
    async def breaks() -> str:
        raise ValueError("row (anna.berg@mail.example, AT61 1904 3002 3457 3201, 4111 1111 1111 1111)")

    app: Litestar = create_app(parts)
    app.register(breaks)
    async with opened(app):
        answer = await Device(app).get("/breaks")
    (line,) = log.of("request_failed")
    assert (line["level"], line["path"], line["request_id"]) == (
        "error",
        "/breaks",
        answer.headers["x-request-id"],
    )
    assert "ValueError: row ([masked:email], [masked:iban], [masked:card])" in line["exception"]
    assert "test_logs.py" in line["exception"]


def test_every_line_is_json_with_the_same_fields(log: Log) -> None:
    structlog.get_logger("ours").info("told", number=3)
    logging.getLogger("theirs").warning("told %s times", 3)
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger("theirs").exception("broken")
    assert len(log.lines) == 3
    for line in log.lines:
        assert {"event", "level", "logger", "timestamp"} <= set(line)
        when = datetime.fromisoformat(line["timestamp"])
        assert when.utcoffset() == timedelta(0)
    assert [line["level"] for line in log.lines] == ["info", "warning", "error"]
    assert "KeyError" in log.lines[2]["exception"]


@pytest.mark.parametrize(
    "text",
    [
        'x\n{"event":"forged","level":"info"}',
        "x\r\nforged",
        "x\u2028forged",
        "x\x85forged",
        "\x1b[2Jgone",
        "\x9b2Jgone",
        "\u202eforged",
        "\x00",
    ],
)
def test_nobody_writes_a_line_of_their_own(log: Log, text: str) -> None:
    structlog.get_logger("ours").info("told", value=text, **{text: 1})
    structlog.get_logger("ours").info(text)
    logging.getLogger("theirs").warning("told %s", text)
    assert len(log.text.splitlines()) == 3  # splitlines knows every separator
    assert [line["event"] for line in log.lines if line["event"] == "forged"] == []
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", log.text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("to anna.b+x@c.example now", "to [masked:email] now"),
        ("call +43 1 2345678 or 0664 1234567", "call [masked:phone] or [masked:phone]"),
        ("AT61 1904 3002 3457 3201", "[masked:iban]"),
        ("AT61 1904 3002 3457 3202", "AT61 1904 3002 3457 3202"),
        ("4111-1111-1111-1111", "[masked:card]"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("eyJhbGciOi.eyJzdWIi.sig_x", "[masked:jwt]"),
        ("sec_live_abcdefgh_0123456789012345678901", "[masked:opaque]"),
        ("sk-proj-abcdefgh0123456789abcdefgh", "[masked:opaque]"),
        ("rst_" + "aB3" * 14 + "a", "[masked:opaque]"),
        ("aB3" * 14 + "a", "[masked:opaque]"),
        ("postgresql://user:pw@host/db", "postgresql://[masked:login]@host/db"),
        ("Authorization: Bearer abcdefgh12345", "[masked:named]"),
        ("sent Bearer abcdefgh12345 off", "sent [masked:bearer] off"),
        ("password=hunter2, next", "[masked:named], next"),
        ("Cookie: a=b", "[masked:named]"),
        ("018f0000-0000-7000-8000-000000000000 req_" + "a" * 32, "018f0000-0000-7000-8000-000000000000 req_" + "a" * 32),
        ("2026-11-23T10:00:00.123456+00:00", "2026-11-23T10:00:00.123456+00:00"),
        ("127.0.0.1:54321 took 0.123456 s", "127.0.0.1:54321 took 0.123456 s"),
        ("secretary_app at server/api/inbox.py:120", "secretary_app at server/api/inbox.py:120"),
    ],
)  # fmt: skip
def test_forms_of_secrets_are_masked(text: str, shown: str) -> None:
    assert mask_text(text) == shown


def test_fields_are_masked_by_their_names(log: Log) -> None:
    for name in (
        "password",
        "newPassword",
        "X-Api-Key",
        "access_token",
        "set-cookie",
        "otp",
        "email",
        "body",
        "text",
        "client_secret",
    ):
        assert masked(name, "x") == MASKED, name
        assert masked("data", {"deep": [{name: "x"}]}) == {"deep": [{name: MASKED}]}, name
    assert masked("code", "123456") == MASKED
    assert [masked("code", value) for value in ("MODEL_DOWN", 4401, None)] == ["MODEL_DOWN", 4401, None]
    assert masked("tokens", 512) == 512
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(20):
        inner["x"] = inner = {}
    assert MASKED in json.dumps(masked("deep", deep))
    structlog.get_logger("ours").info("told", password="hunter2", request={"cookie": "a=b", "path": "/x"})
    (line,) = log.lines
    assert (line["password"], line["request"]) == (MASKED, {"cookie": MASKED, "path": "/x"})


def test_nothing_logs_elsewhere() -> None:
    """One stream for all; no file, no syslog, no socket, and no print in services (ruff's T20 has the same for the rest)."""
    for package in ("agents", "graphs", "ingest", "prompts", "server", "storage", "tools"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    name = ast.unparse(node.func)
                    assert not re.search(
                        r"(File|Syslog|SysLog|HTTP|SMTP|Socket|Datagram)Handler$|basicConfig$|PrintLogger",
                        name,
                    ), path
                    if name.endswith("StreamHandler"):
                        assert path.name == "telemetry.py"
