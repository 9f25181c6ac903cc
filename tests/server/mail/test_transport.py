"""Sending to a real SMTP server on loopback, and to a folder."""

import asyncio
import ipaddress
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from pathlib import Path
from uuid import UUID

import pytest
from aiosmtpd.smtp import SMTP as Server
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from server.mail.compose import Mail, message
from server.mail.transport import (
    SMTP,
    Folder,
    PermanentMailError,
    TemporaryMailError,
    Transport,
    make_transport,
)
from storage.errors import ConfigurationError

USER, PASSWORD = "user@app.example", "p:ä/ss@?"


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate, its own authority."""

    pem: Path
    context: ssl.SSLContext


def certificate(folder: Path, address: str) -> Certificate:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    pem, private = folder / f"{address}.pem", folder / f"{address}.key"
    pem.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return Certificate(pem, context)


@dataclass
class Inbox:
    """Keeps what arrives; answers as the test says."""

    answer: str = "250 OK"
    recipient_answer: str = "250 OK"
    envelopes: list[Envelope] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)

    async def handle_RCPT(  # noqa: N802  # aiosmtpd calls it by this name
        self, server: Server, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.recipient_answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient_answer

    async def handle_DATA(self, server: Server, session: Session, envelope: Envelope) -> str:  # noqa: N802  # as above
        self.envelopes.append(envelope)
        self.encrypted.append(session.ssl is not None)
        return self.answer


def login(_: object, __: object, ___: object, ____: object, data: object) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (
        USER.encode(),
        PASSWORD.encode(),
    )
    return AuthResult(success=good, handled=good)


@asynccontextmanager
async def smtp_server(
    inbox: Inbox, *, starttls: Certificate | None = None, tls: Certificate | None = None
) -> AsyncIterator[int]:
    """A server on the test's own loop; gives its port."""

    def connected() -> Server:
        return Server(
            inbox,
            hostname="mail.example",
            tls_context=starttls.context if starttls else None,
            authenticator=login,
            auth_required=starttls is not None,
            auth_require_tls=True,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connected, "127.0.0.1", 0, ssl=tls.context if tls else None)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("trusted"), "127.0.0.1")


def mail(recipient: str = "erika@x.example") -> EmailMessage:
    return message(
        Mail("Grüße", "Hallo\n.\nEnde\n", "<p>Hallo</p>"),
        sender="AI Secretary <no-reply@app.example>",
        recipient=recipient,
        row_id=UUID(int=7),
        date=datetime(2026, 3, 1, tzinfo=UTC),
    )


def to(
    port: int,
    ca: Certificate,
    scheme: str = "smtp",
    credentials: str = "user%40app.example:p%3A%C3%A4%2Fss%40%3F@",
) -> Transport:
    return make_transport(f"{scheme}://{credentials}127.0.0.1:{port}?ca={ca.pem}", production=True)


async def test_a_mail_over_starttls_with_a_login(trusted: Certificate) -> None:
    inbox = Inbox()
    async with smtp_server(inbox, starttls=trusted) as port:
        await to(port, trusted).send(mail())
    [envelope] = inbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos, inbox.encrypted) == (
        "no-reply@app.example",
        ["erika@x.example"],
        [True],
    )
    assert isinstance(envelope.content, bytes)
    arrived = message_from_bytes(envelope.content, policy=WIRE)
    assert (arrived["Subject"], arrived["Message-ID"]) == ("Grüße", f"<{UUID(int=7)}@app.example>")
    body = arrived.get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n") == "Hallo\n.\nEnde\n"


async def test_a_mail_over_tls(trusted: Certificate) -> None:
    inbox = Inbox()
    async with smtp_server(inbox, tls=trusted) as port:
        await to(port, trusted, "smtps", "").send(mail())
    assert len(inbox.envelopes) == 1


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_a_bad_certificate_gets_no_mail(
    tmp_path: Path, trusted: Certificate, scheme: str, wrong: str
) -> None:
    inbox, shown = Inbox(), certificate(tmp_path, "127.0.0.1" if wrong == "authority" else "127.0.0.2")
    believed = trusted if wrong == "authority" else shown
    served = {"starttls": shown} if scheme == "smtp" else {"tls": shown}
    async with smtp_server(inbox, **served) as port:
        with pytest.raises(TemporaryMailError):
            await to(port, believed, scheme).send(mail())
    assert inbox.envelopes == []


async def test_a_server_without_starttls_gets_no_mail(trusted: Certificate) -> None:
    inbox = Inbox()
    async with smtp_server(inbox) as port:
        with pytest.raises(TemporaryMailError, match=r"^SMTPException$"):
            await to(port, trusted, credentials="").send(mail())
    assert inbox.envelopes == []


@pytest.mark.parametrize(
    ("inbox", "kind", "text"),
    [
        (Inbox("451 later"), TemporaryMailError, "SMTPDataError 451"),
        (Inbox("554 erika@x.example is spam"), PermanentMailError, "SMTPDataError 554"),
        (Inbox(recipient_answer="450 greylisted"), TemporaryMailError, "SMTPRecipientsRefused 450"),
        (Inbox(recipient_answer="550 no erika@x.example here"), PermanentMailError, "SMTPRecipientsRefused 550"),
    ],
)  # fmt: skip
async def test_refusals(trusted: Certificate, inbox: Inbox, kind: type[Exception], text: str) -> None:
    async with smtp_server(inbox, starttls=trusted) as port:
        with pytest.raises(kind) as refused:
            await to(port, trusted).send(mail())
    assert str(refused.value) == text, "a code, and no address"


async def test_a_wrong_password_is_our_fault_and_the_mail_waits(trusted: Certificate) -> None:
    inbox = Inbox()
    async with smtp_server(inbox, starttls=trusted) as port:
        with pytest.raises(TemporaryMailError, match="SMTPAuthenticationError 535"):
            await to(port, trusted, credentials="user%40app.example:wrong@").send(mail())
    assert inbox.envelopes == []


async def test_nobody_there(trusted: Certificate) -> None:
    with pytest.raises(TemporaryMailError, match="SMTPConnectError"):
        await to(1, trusted).send(mail())


async def test_a_folder_keeps_a_mail_once_and_to_itself(tmp_path: Path) -> None:
    folder = tmp_path / "mails" / "out"
    out = make_transport(f"file:{folder}", production=False)
    assert isinstance(out, Folder)
    await out.send(mail())
    await out.send(mail())
    [file] = folder.iterdir()
    assert file.suffix == ".eml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert message_from_bytes(file.read_bytes(), policy=WIRE)["To"] == "erika@x.example"


async def test_a_folder_that_cannot_be_written_is_temporary(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(TemporaryMailError, match="Error"):
        await Folder(tmp_path / "taken").send(mail())


def test_the_setting() -> None:
    for url, port, implicit in (
        ("smtp://h", 587, False),
        ("smtps://h", 465, True),
        ("smtps://h:2465/", 2465, True),
    ):
        made = make_transport(url, production=True)
        assert isinstance(made, SMTP)
        assert (made._port, made._implicit_tls) == (port, implicit)
        assert made._tls.verify_mode is ssl.CERT_REQUIRED
        assert made._tls.check_hostname is True


@pytest.mark.parametrize(
    "url",
    ["", "h:25", "http://h", "smtp://", "smtp://h:port", "smtp://h/path", "smtp://h?verify=no", "smtp://h?ca=/missing",
     "smtp://h?ca", "file:", "smtp://u:secret@h:99999"],
)  # fmt: skip
def test_a_setting_that_names_no_way_out(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        make_transport(url, production=False)
    assert "MAIL_URL" in refused.value.message
    assert "secret" not in refused.value.message


def test_production_has_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="in production"):
        make_transport(f"file:{tmp_path}", production=True)
