"""Ways out for a mail: an SMTP server over verified TLS, or a folder for development. Named by a setting:

``smtp://user:password@host:587`` (STARTTLS, always), ``smtps://user:password@host:465`` (TLS), ``file:/folder``. With
``?ca=/file.pem`` the server's certificate must come from that authority instead of the system's.
"""

import asyncio
import os
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import aiosmtplib

from storage.errors import ConfigurationError

TIMEOUT = 20.0  # seconds for each step of the conversation
TOTAL_TIMEOUT = 60.0


class TemporaryMailError(Exception):
    """The mail did not go; the same mail may go later."""


class PermanentMailError(Exception):
    """The mail will never go as it is: the server refuses sender, recipient or content."""


class Transport(Protocol):
    """One way out."""

    async def send(self, message: EmailMessage) -> None:
        """Hand the mail over.

        Raises:
            TemporaryMailError: try again later.
            PermanentMailError: do not.
        """
        ...


class SMTP:
    """A mail server. No mail and no password goes over a connection that is not encrypted to a server that has proved
    its name.

    Args:
        tls: with which the server's certificate is checked; the system's authorities by default.
        implicit_tls: TLS from the first byte (port 465); else STARTTLS, and no mail where the server has none.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        implicit_tls: bool,
        username: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._host = host
        self._port = port
        self._implicit_tls = implicit_tls
        self._username = username
        self._password = password
        self._tls = tls or ssl.create_default_context()
        self._timeout = timeout

    async def send(self, message: EmailMessage) -> None:
        try:
            async with asyncio.timeout(TOTAL_TIMEOUT):
                await aiosmtplib.send(
                    message,
                    hostname=self._host,
                    port=self._port,
                    username=self._username,
                    password=self._password,
                    use_tls=self._implicit_tls,
                    start_tls=not self._implicit_tls,
                    tls_context=self._tls,
                    timeout=self._timeout,
                )
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            name = type(error).__name__  # never the server's text: it repeats addresses
            code = _code(error)
            kind = PermanentMailError if _is_permanent(error, code) else TemporaryMailError
            raise kind(f"{name} {code}" if code else name) from error


class Folder:
    """Each mail is a file ``*.eml`` that its owner alone may read. For development: nobody gets anything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, message: EmailMessage) -> None:
        try:
            await asyncio.to_thread(self._write, message)
        except OSError as error:
            raise TemporaryMailError(type(error).__name__) from error

    def _write(self, message: EmailMessage) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # By the ID, so that a mail that is sent twice is there once; hashed, because an ID may hold a slash.
        name = sha256(str(message["Message-ID"]).encode()).hexdigest()[:32]
        draft = self._folder / f".{name}.{os.getpid()}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(message.as_bytes(policy=WIRE))
        draft.replace(self._folder / f"{name}.eml")


def make_transport(url: str, *, production: bool) -> Transport:
    """The way out that the setting MAIL_URL names.

    Raises:
        ConfigurationError: it names none, or a folder in production.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        if production:
            raise ConfigurationError(
                "MAIL_URL is a folder: in production mails must go to a server (smtp:// or smtps://)."
            )
        if not parts.path:
            raise ConfigurationError("MAIL_URL names no folder: file:/folder.")
        return Folder(Path(unquote(parts.path)))
    if parts.scheme not in {"smtp", "smtps"}:
        raise ConfigurationError("MAIL_URL must begin with smtp://, smtps:// or file:.")
    return _server(parts)


def _server(parts: SplitResult) -> SMTP:
    try:
        host, port = parts.hostname, parts.port
        options: Mapping[str, list[str]] = parse_qs(parts.query, strict_parsing=bool(parts.query))
        tls = ssl.create_default_context(cafile=options["ca"][0] if "ca" in options else None)
    except (ValueError, OSError) as error:  # the text is not repeated: it may hold the password
        raise ConfigurationError(
            "MAIL_URL has a port, an option or a file of authorities that cannot be used."
        ) from error
    if not host or parts.path not in {"", "/"} or set(options) - {"ca"}:
        raise ConfigurationError(
            "MAIL_URL must be smtp://user:password@host:port with at most the option ca."
        )
    implicit = parts.scheme == "smtps"
    return SMTP(
        host,
        port or (465 if implicit else 587),
        implicit_tls=implicit,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        tls=tls,
    )


def _code(error: Exception) -> int | None:
    """The server's answer, RFC 5321 4.2.1; of several refused recipients the first's."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return error.recipients[0].code if error.recipients else None
    return error.code if isinstance(error, aiosmtplib.SMTPResponseException) else None


def _is_permanent(error: Exception, code: int | None) -> bool:
    if isinstance(
        error,
        aiosmtplib.SMTPAuthenticationError | aiosmtplib.SMTPConnectResponseError | aiosmtplib.SMTPHeloError,
    ):
        return False  # our configuration's or the server's fault, not the mail's: it goes when that is mended
    return code is not None and 500 <= code < 600
