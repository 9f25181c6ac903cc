"""The page that mails link to, in a real browser: sign up, follow the link, sign in; forget the password, set a new one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from playwright.async_api import Page, expect

from server.app import create_app
from server.deps import Parts
from server.mail.compose import compose
from storage.repositories import mails

SHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
EMAIL = "nora@shop.example"
OLD, NEW = "nine quiet herons over the pond", "eleven loud geese behind a barn"


class _Server(uvicorn.Server):
    """In the test's loop: signals are the test runner's."""

    def install_signal_handlers(self) -> None:
        return None


@pytest.fixture
async def base(parts: Parts) -> AsyncIterator[str]:
    """The address of the application, served over HTTP."""
    config = uvicorn.Config(
        create_app(parts), host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=2
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:
            assert not serving.done()
            await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


async def link_of(parts: Parts, template: str) -> str:
    """The link in the next mail, as the person reads it."""
    async with parts.database.identity_session() as session:
        mail = await mails.claim(session, lease_seconds=60)
        assert mail is not None
        assert mail.template == template
        await mails.mark_sent(session, mail)
    text = compose("verify_email" if template == "verify_email" else "reset_password", "en", mail.values).text
    return next(word for word in text.split() if "/account#" in word)


async def test_from_sign_up_to_a_new_password(base: str, parts: Parts, page: Page) -> None:
    async with httpx.AsyncClient(base_url=base) as client:
        body = {"email": EMAIL, "password": OLD, "name": "Nora", "business": "Noras Laden", "language": "de"}
        assert (await client.post("/api/v1/auth/sign-up", json=body)).status_code == 202
        login = {"email": EMAIL, "password": OLD}
        refused = await client.post("/api/v1/auth/login", json=login)
        assert (refused.status_code, refused.json()["error"]["details"]) == (403, {"reason": "email"})

        link = await link_of(parts, "verify_email")
        await page.goto(link)
        await expect(page.locator("h1")).to_have_text("E-Mail-Adresse bestätigen")
        assert page.url == f"{base}/account"  # the token is out of the address bar
        await page.screenshot(path=SHOTS / "account.png")
        await page.locator("#send").click()
        await expect(page.locator("#result")).to_have_text("Fertig. Sie können sich jetzt anmelden.")
        assert (await client.post("/api/v1/auth/login", json=login)).status_code == 200

        await page.goto("about:blank")
        await page.goto(link)
        await page.locator("#send").click()
        await expect(page.locator("#result.error")).to_have_text(
            "This link has expired or was used. Ask for a new one."
        )

        asked = await client.post("/api/v1/auth/password/forgotten", json={"email": EMAIL})
        assert asked.status_code == 202
        async with parts.database.identity_session() as session:
            while (other := await mails.claim(session, lease_seconds=60)) and other.template == "new_sign_in":
                await mails.mark_sent(session, other)
        assert other is not None
        assert other.template == "reset_password"
        await page.goto("about:blank")
        await page.goto(other.values["link"])
        await page.locator("#password").fill("short")
        await page.locator("#send").click()
        await expect(page.locator("#result.error")).to_contain_text("at least 12 characters")
        await page.locator("#password").fill(NEW)
        await page.locator("#send").click()
        await expect(page.locator("#result")).to_have_text(
            "Fertig. Melden Sie sich mit dem neuen Passwort an."
        )
        for password, status in ((OLD, 401), (NEW, 200)):
            answer = await client.post("/api/v1/auth/login", json={"email": EMAIL, "password": password})
            assert answer.status_code == status
