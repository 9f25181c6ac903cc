"""A real Chromium for browser tests: Debian's when it is there, else the one that Playwright installs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.async_api import Browser, async_playwright
from playwright.async_api import Error as PlaywrightError

DEBIAN_CHROMIUM = Path("/usr/bin/chromium")
EXECUTABLE = DEBIAN_CHROMIUM if DEBIAN_CHROMIUM.exists() else None
# What keeps a fresh profile from calling home: the tests may reach loopback only.
ARGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def unavailable(reason: str) -> NoReturn:
    """Skips the test, or fails it when the environment has CI set: there a missing browser is an error."""
    message = f"No browser for the end-to-end tests: {reason}"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """A running headless browser.

    Yields:
        The browser. It is closed on exit; contexts and pages opened in it go with it.

    Raises:
        pytest.skip.Exception: when no browser can be started (a failure instead when CI is set).
    """
    async with async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(executable_path=EXECUTABLE, args=list(ARGS))
        except PlaywrightError as error:
            unavailable(str(error).strip().splitlines()[0])
        try:
            yield browser
        finally:
            await browser.close()
