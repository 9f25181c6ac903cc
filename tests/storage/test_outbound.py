"""The guard over requests to strangers' addresses, against real sockets on loopback."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from storage.outbound import OutboundRefused, check_url, guarded_client, is_public

BOTH = frozenset({"http", "https"})
Answer = Callable[[str, dict[str, str], bytes], Awaitable[bytes] | bytes]


@asynccontextmanager
async def site(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A web server that says what ``answer(path, headers, body)`` returns, byte for byte. Yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            said = answer(f"{head[0].split()[0]} {head[0].split()[1]}", headers, body)
            writer.write(said if isinstance(said, bytes) else await said)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client may leave at any time: that is what is tested
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def said(body: bytes = b"ok", status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def local(*ports: int, **more: Any) -> httpx.AsyncClient:
    """A client that may ask these ports of this machine, by address."""
    settings = {"timeout": 5.0, "max_bytes": 10_000, "schemes": BOTH, **more}
    return guarded_client(allow_private=frozenset(f"127.0.0.1:{port}" for port in ports), **settings)


def reason_of(caught: pytest.ExceptionInfo[OutboundRefused]) -> str:
    assert caught.value.details == {"reason": caught.value.reason}
    assert (caught.value.code, caught.value.status) == ("VALIDATION_ERROR", 422)
    return caught.value.reason


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "2606:4700:4700::1111",
        "2a00:1450:4001::200e",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "100.128.0.1",
        "172.32.0.1",
    ],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.170",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "2001:0:53aa:64c::1",
        "2001:db8::1",
        "3fff::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1%eth0",
        "fec0::1",
        "ff02::1",
        "100::1",
        "5f00::1",
        "not an address",
        "2130706433",
    ],
)
def test_addresses_that_are_nobodys_or_ours(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "malformed"),
        ("example.com/x", "scheme"),
        ("//example.com/x", "scheme"),
        ("http://example.com/", "scheme"),
        ("ftp://example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("https://", "malformed"),
        ("https://user@example.com/", "userinfo"),
        ("https://user:pw@example.com/", "userinfo"),
        ("https://@example.com/", "userinfo"),
        ("https://example.com:22/", "port"),
        ("https://example.com:6379/", "port"),
        ("https://example.com:99999/", "port"),
        ("https://exa mple.com/", "malformed"),
        ("https://example.com\\@127.0.0.1/", "malformed"),
        ("https://example.com/\r\nHost: x", "malformed"),
        ("https://example.com./", "malformed"),
        ("https://127.0.0.1./", "malformed"),
        ("https://a..b.example/", "malformed"),
        ("https://127.0.0.1/", "private"),
        ("https://[::1]/", "private"),
        ("https://[::ffff:127.0.0.1]/", "private"),
        ("https://[fe80::1%25eth0]/", "private"),
        ("https://a@b@example.com/", "userinfo"),
        ("https://169.254.169.254/latest/meta-data/", "private"),
        ("https://2130706433/", "malformed"),
        ("https://0x7f000001/", "malformed"),
        ("https://0x7f.1/", "malformed"),
        ("https://0177.0.0.1/", "malformed"),
        ("https://017700000001/", "malformed"),
        ("https://127.1/", "malformed"),
        ("https://1.2.3.4.5/", "malformed"),
        ("https://localhost/", "private"),
        ("https://LOCALHOST/", "private"),
        ("https://redis/", "private"),
        ("https://db.internal/", "private"),
        ("https://printer.local/", "private"),
        ("https://x.localhost/", "private"),
        ("https://１２７.０.０.１/", "malformed"),
        ("https://①②⑦.0.0.1/", "malformed"),
        ("https://example.com/" + "a" * 2048, "malformed"),
    ],
)
def test_addresses_that_are_refused_when_they_are_entered(url: str, reason: str) -> None:
    with pytest.raises(OutboundRefused) as caught:
        check_url(url)
    assert reason_of(caught) == reason


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://Example.com", "https://example.com"),
        ("HTTPS://example.com:443/a?b=c#d", "https://example.com/a?b=c"),
        ("https://example.com:8443/", "https://example.com:8443/"),
        ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
        ("https://8.8.8.8/", "https://8.8.8.8/"),
        ("https://[2606:4700::1]/", "https://[2606:4700::1]/"),
        ("https://10.example.com/", "https://10.example.com/"),
    ],
)
def test_addresses_that_are_taken(url: str, normal: str) -> None:
    checked = check_url(url)
    assert httpx.URL(checked) == httpx.URL(normal)
    assert httpx.URL(checked).raw_host == httpx.URL(normal).raw_host
    assert "#" not in checked


def test_an_operators_entry_is_exact() -> None:
    allowed = frozenset({"127.0.0.1:9001", "hooks:80"})
    assert (
        check_url("http://127.0.0.1:9001/x", schemes=BOTH, allow_private=allowed) == "http://127.0.0.1:9001/x"
    )
    assert check_url("http://hooks/x", schemes=BOTH, allow_private=allowed) == "http://hooks/x"
    for other in (
        "http://127.0.0.1:9002/",
        "http://127.0.0.2:9001/",
        "http://127.0.0.1/",
        "http://hooks:81/",
    ):
        with pytest.raises(OutboundRefused):
            check_url(other, schemes=BOTH, allow_private=allowed)


async def test_an_answer_comes_through() -> None:
    async with site(lambda path, headers, body: said(body or path.encode())) as port, local(port) as client:
        assert (await client.get(f"http://127.0.0.1:{port}/a?b=1")).text == "GET /a?b=1"
        answer = await client.post(f"http://127.0.0.1:{port}/", content=b"sent")
        assert (answer.text, answer.extensions["final_url"]) == ("sent", f"http://127.0.0.1:{port}/")


async def test_a_request_is_checked_like_an_entry() -> None:
    async with guarded_client(timeout=1, max_bytes=10) as client:
        with pytest.raises(OutboundRefused) as caught:
            await client.get("https://169.254.169.254/")
        assert reason_of(caught) == "private"
        with pytest.raises(OutboundRefused):
            await client.get("http://example.com/")


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[tuple[str, int]]) -> list[str]:
    """A resolver that gives these answers, one after the other; returns the names it was asked for."""
    asked: list[str] = []
    remaining, real = list(answers), socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **named: Any) -> list[Any]:
        if host in {"127.0.0.1", b"127.0.0.1"}:
            return real(host, port, *args, **named)
        asked.append(host if isinstance(host, str) else host.decode())
        found = remaining.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, at or port)) for ip, at in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


async def test_a_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with guarded_client(timeout=2, max_bytes=10) as client:
        for inside in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1"):
            asked = resolving(monkeypatch, [(inside, 0)])
            with pytest.raises(OutboundRefused) as caught:
                await client.get("https://innocent.example/")
            assert reason_of(caught) == "private"
            assert asked == ["innocent.example"]


async def test_one_private_address_among_public_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, [("93.184.216.34", 0), ("127.0.0.1", 0)])
    async with guarded_client(timeout=2, max_bytes=10) as client:
        with pytest.raises(OutboundRefused):
            await client.get("https://innocent.example/")


async def test_a_name_is_resolved_once_and_the_socket_goes_to_what_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DNS rebinding: the second answer would lead inside, if there were a second question."""
    import httpcore

    connected: list[str] = []

    async def connect(self: Any, host: str, port: int, *args: Any, **named: Any) -> Any:
        connected.append(host)
        raise httpcore.ConnectError("nobody there")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    asked = resolving(monkeypatch, [("93.184.216.34", 0)], [("127.0.0.1", 0)])
    async with guarded_client(timeout=2, max_bytes=10) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("https://rebinding.example/")
        assert (asked, connected) == (["rebinding.example"], ["93.184.216.34"])
        with pytest.raises(OutboundRefused):
            await client.get("https://rebinding.example/")
    assert connected == ["93.184.216.34"]


async def test_a_redirect_inside_is_refused() -> None:
    for target in (
        "http://169.254.169.254/latest",
        "http://127.0.0.1:1/",
        "http://2130706433/",
        "file:///etc/passwd",
        "//[::1]/",
        "http://user:pw@example.com/",
    ):
        asked: list[str] = []

        def answer(
            path: str, headers: dict[str, str], body: bytes, target: str = target, asked: list[str] = asked
        ) -> bytes:
            asked.append(path)
            return said(status="302 Found", Location=target)

        async with site(answer) as port, local(port) as client:
            with pytest.raises(OutboundRefused):
                await client.get(f"http://127.0.0.1:{port}/")
        assert asked == ["GET /"]


async def test_three_redirects_are_followed_and_not_a_fourth() -> None:
    def answer(path: str, headers: dict[str, str], body: bytes) -> bytes:
        left = int(path.rpartition("/")[2])
        return said(status="302 Found", Location=f"/{left - 1}") if left else said(b"there")

    async with site(answer) as port, local(port) as client:
        found = await client.get(f"http://127.0.0.1:{port}/3")
        assert (found.text, found.extensions["final_url"]) == ("there", f"http://127.0.0.1:{port}/0")
        with pytest.raises(OutboundRefused) as caught:
            await client.get(f"http://127.0.0.1:{port}/4", follow_redirects=True)
        assert reason_of(caught) == "redirects"


async def test_secrets_stay_with_the_origin_they_were_meant_for() -> None:
    seen: list[dict[str, str]] = []

    def other(path: str, headers: dict[str, str], body: bytes) -> bytes:
        seen.append(headers)
        return said(b"end")

    async with site(other) as second:

        def first(path: str, headers: dict[str, str], body: bytes) -> bytes:
            seen.append(headers)
            return said(
                status="302 Found",
                Location="/same" if path == "GET /" else f"http://127.0.0.1:{second}/",
                Set_Cookie="a=b",
            )

        async with site(first) as port, local(port, second) as client:
            secrets = {"authorization": "Bearer x", "x-api-key": "y", "cookie": "c=d", "accept": "text/html"}
            answer = await client.get(f"http://127.0.0.1:{port}/", headers=secrets)
            again = await client.get(f"http://127.0.0.1:{second}/")
    assert (answer.text, again.text) == ("end", "end")
    assert [headers.get("authorization") for headers in seen] == ["Bearer x", "Bearer x", None, None]
    assert [headers.get("x-api-key") for headers in seen] == ["y", "y", None, None]
    assert [headers.get("cookie") for headers in seen] == ["c=d", "c=d", None, None]
    assert seen[2]["accept"] == "text/html"
    assert seen[2]["host"] == f"127.0.0.1:{second}"


async def test_what_was_sent_is_not_passed_on_to_another_origin() -> None:
    seen: list[tuple[str, bytes]] = []

    def other(path: str, headers: dict[str, str], body: bytes) -> bytes:
        seen.append((path, body))
        return said()

    async with site(other) as second:

        def first(path: str, headers: dict[str, str], body: bytes) -> bytes:
            status = "307 Temporary Redirect" if path.endswith("/307") else "302 Found"
            return said(status=status, Location=f"http://127.0.0.1:{second}/")

        async with site(first) as port, local(port, second) as client:
            with pytest.raises(OutboundRefused) as caught:
                await client.post(f"http://127.0.0.1:{port}/307", content=b"secret")
            assert reason_of(caught) == "redirect"
            await client.post(f"http://127.0.0.1:{port}/302", content=b"secret")
    assert seen == [("GET /", b"")]


async def test_a_body_may_be_as_large_as_was_said_and_no_larger() -> None:
    async def unannounced() -> bytes:
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 10_001

    def answer(path: str, headers: dict[str, str], body: bytes) -> Any:
        return unannounced() if path.endswith("/quiet") else said(b"x" * int(path.rpartition("/")[2]))

    async with site(answer) as port, local(port) as client:
        assert len((await client.get(f"http://127.0.0.1:{port}/10000")).content) == 10_000
        for path in ("10001", "quiet"):
            with pytest.raises(OutboundRefused) as caught:
                await client.get(f"http://127.0.0.1:{port}/{path}")
            assert reason_of(caught) == "too_large"


async def test_packed_answers_are_unpacked_within_the_same_bound() -> None:
    packed = {
        "small": gzip.compress(b"hello"),
        "two": gzip.compress(b"hello ") + gzip.compress(b"world"),
        "bomb": gzip.compress(b"\0" * 5_000_000),
        "cut": gzip.compress(b"hello")[:-4],
        "no": b"this is not gzip",
    }

    def answer(path: str, headers: dict[str, str], body: bytes) -> bytes:
        assert headers["accept-encoding"] == "gzip"
        return said(packed[path.rpartition("/")[2]], Content_Encoding="gzip")

    async with site(answer) as port, local(port) as client:
        small = await client.get(f"http://127.0.0.1:{port}/small")
        assert (small.text, "content-encoding" in small.headers) == ("hello", False)
        assert (await client.get(f"http://127.0.0.1:{port}/two")).text == "hello world"
        assert len(packed["bomb"]) < 10_000
        with pytest.raises(OutboundRefused) as caught:
            await client.get(f"http://127.0.0.1:{port}/bomb")
        assert reason_of(caught) == "too_large"
        for broken in ("cut", "no"):
            with pytest.raises(httpx.DecodingError):
                await client.get(f"http://127.0.0.1:{port}/{broken}")


async def test_a_packing_that_was_not_asked_for_is_refused() -> None:
    async with (
        site(lambda path, headers, body: said(b"x", Content_Encoding="zstd")) as port,
        local(port) as client,
    ):
        with pytest.raises(OutboundRefused) as caught:
            await client.get(f"http://127.0.0.1:{port}/")
        assert reason_of(caught) == "encoding"


async def test_the_time_is_for_the_whole_of_it() -> None:
    """A byte now and then would keep a timeout between bytes from ever passing."""
    stop = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        try:
            while not stop.is_set():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with local(port, timeout=0.3) as client:
        with pytest.raises(httpx.ReadTimeout):
            async with asyncio.timeout(5):
                await client.get(f"http://127.0.0.1:{port}/")
    stop.set()
    server.close()
    await server.wait_closed()


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with site(lambda path, headers, body: said(b"direct")) as port, local(port) as client:
        assert (await client.get(f"http://127.0.0.1:{port}/")).text == "direct"


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS context for ``name``, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{name}.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


async def test_tls_proves_the_name_although_the_socket_goes_to_an_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, trusting = certified(tmp_path, "shop.example")
    async with site(lambda path, headers, body: said(headers["host"].encode()), server) as port:
        names = frozenset({f"shop.example:{port}", f"other.example:{port}"})
        resolving(monkeypatch, *([[("127.0.0.1", port)]] * 3))
        async with guarded_client(timeout=5, max_bytes=100, allow_private=names, verify=trusting) as client:
            assert (await client.get(f"https://shop.example:{port}/")).text == f"shop.example:{port}"
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await client.get(f"https://other.example:{port}/")
        async with guarded_client(timeout=5, max_bytes=100, allow_private=names) as client:
            with pytest.raises(httpx.ConnectError, match="certificate"):
                await client.get(f"https://shop.example:{port}/")
