"""People who sign in over HTTP: their devices, their mail, and what a test changes behind the product's back."""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pyotp
from litestar import Litestar
from sqlalchemy import text

from server.auth.passwords import hash_password
from server.deps import Parts
from storage.ids import new_id
from storage.repositories import accounts, mails
from storage.repositories.mails import Mail
from storage.tenancy import TenantContext
from tests.support.world import TestTenant

AUTH = "/api/v1/auth"
LOGIN, ME, SESSIONS = f"{AUTH}/login", f"{AUTH}/me", f"{AUTH}/sessions"
THREADS = "/api/v1/inbox/threads"
PASSWORD, ANOTHER = "plum kettle orbit sandwich 41", "quartz violin thunder meadow 77"
_HASH = hash_password(PASSWORD)
Refusal = tuple[int, str, dict[str, Any]]
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"


def address() -> str:
    """An address of a network of its own: counters of addresses are in Redis, which all tests share."""
    return ".".join(["10", *(str(secrets.randbelow(254) + 1) for _ in range(3))])


@dataclass
class Device:
    """A browser, or a program, at one address. It keeps cookies as a browser does, and sends our page's header.

    Attributes:
        token: access token that it shows.
        refresh: the refresh token of the last sign-in.
        secret: of the person's app for codes, once it is set up.
    """

    app: Litestar
    ip: str = field(default_factory=address)
    agent: str = FIREFOX
    cookies: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    refresh: str | None = None
    secret: str = ""

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """One request. ``headers``: names with ``_`` for ``-``; an empty one is left out."""
        called: Any = self.app
        transport = httpx.ASGITransport(called, raise_app_exceptions=False, client=(self.ip, 4711))
        sent = {"user-agent": self.agent, "x-requested-with": "test"}
        if self.token is not None:
            sent["authorization"] = f"Bearer {self.token}"
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in sent.items() if value}
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.request(method, path, json=body, headers=sent)
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return answer

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.ask("GET", path, **headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return await self.ask("POST", path, body, **headers)

    async def login(self, email: str, password: str = PASSWORD, **more: Any) -> httpx.Response:
        """The first step; keeps the tokens where it was the only one."""
        return self.kept(await self.post(LOGIN, {"email": email, "password": password, **more}))

    async def second(self, challenge: str, **proof: Any) -> httpx.Response:
        """The second step."""
        return self.kept(await self.post(f"{LOGIN}/second-factor", {"challenge": challenge, **proof}))

    def kept(self, answer: httpx.Response) -> httpx.Response:
        content = answer.json()
        self.token = content.get("access_token") or self.token
        self.refresh = content.get("refresh_token") or self.refresh
        return answer

    async def set_up_totp(self) -> list[str]:
        """An app for codes, with the code of the step before: this one's is left for the test. The recovery codes."""
        begun = await self.post(f"{AUTH}/totp")
        assert begun.status_code == 200, begun.text
        self.secret = begun.json()["secret"]
        done = await self.post(f"{AUTH}/totp/confirm", {"code": self.code(-1)})
        assert done.status_code == 200, done.text
        codes: list[str] = done.json()["recovery_codes"]
        return codes

    def code(self, steps: int = 0) -> str:
        """What the app shows, or showed some steps before."""
        return pyotp.TOTP(self.secret).at(datetime.now(UTC) + timedelta(seconds=30 * steps))


@dataclass(frozen=True)
class Person:
    account_id: Any
    email: str


async def person(
    parts: Parts, tenant: TestTenant | None, role: str = "staff", *, verified: bool = True
) -> Person:
    """Somebody with PASSWORD and, where a tenant is given, a role in it."""
    email = f"{new_id().hex[-12:]}@people.example"
    async with parts.database.identity_session() as session:
        await accounts.add(
            session, email=email, name="Pat", password_hash=_HASH, language="en", verified=verified
        )
        account = await accounts.by_email(session, email)
        assert account is not None
        if tenant is not None:
            await join(session, tenant, account, role)
    return Person(account.id, email)


async def join(session: Any, tenant: TestTenant, account: accounts.Account, role: str) -> None:
    role_id = await accounts.role_id(session, tenant.info.id, role)
    assert await accounts.join(session, tenant.info.id, account, role_id)


async def post(parts: Parts) -> list[Mail]:
    """All mails that are due and were not read by this function before."""
    found: list[Mail] = []
    async with parts.database.identity_session() as session:
        while (mail := await mails.claim(session, lease_seconds=3600)) is not None:
            found.append(mail)
    return found


async def link(parts: Parts, template: str, recipient: str) -> str:
    """The token of the only such mail that is due."""
    links = [
        mail.values["link"]
        for mail in await post(parts)
        if (mail.template, mail.recipient) == (template, recipient)
    ]
    assert len(links) == 1
    return str(links[0].split(f"/account#{template}=")[1])


async def behind(parts: Parts, statement: str, **values: Any) -> Any:
    """Change rows, or look one value up, as the role that owns sign-in data."""
    async with parts.database.identity_session() as session:
        result = await session.execute(text(statement), values)
        return result.scalar() if result.returns_rows else None


async def audited(parts: Parts, tenant_id: Any, action: str) -> int:
    """How many entries of an action are in a tenant's audit log."""
    async with parts.database.tenant_session(TenantContext(tenant_id, "user:test")) as session:
        return int(
            await session.scalar(
                text("select count(*) from audit_log where action = :action"), {"action": action}
            )
        )


def error(answer: httpx.Response) -> Refusal:
    """Status, code and details of a refusal."""
    content = answer.json()["error"]
    return answer.status_code, content["code"], content["details"]


def shape(answer: httpx.Response) -> tuple[int, list[str], Any]:
    """What must be the same for known and unknown people: status, names of the headers, body without the request's id."""
    content = answer.json()
    content.get("error", {}).pop("request_id", None)
    return answer.status_code, sorted(answer.headers), content
