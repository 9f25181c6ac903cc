"""How it is shipped: what the image holds, who faces the network, who is known at first."""

import fnmatch
import re
import ssl
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import yaml
from packaging.version import Version

from server.mail.transport import SMTP
from storage.permissions import OWNER

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
OURS = ("migrate", "seed", "api", "worker")
# The first release without a hole that was published for a library of the runtime lock; a CI with a network asks pip-audit for all of them.
MENDED = {
    "aiohttp": "3.13.3",
    "authlib": "1.6.6",
    "certifi": "2024.7.4",
    "cryptography": "44.0.1",
    "h11": "0.16.0",
    "idna": "3.7",
    "jinja2": "3.1.6",
    "langchain-core": "1.2.5",
    "langgraph-checkpoint": "3.0.0",
    "litestar": "2.18.0",
    "protobuf": "6.31.1",
    "pyjwt": "2.10.1",
    "pypdf": "6.6.2",
    "requests": "2.32.4",
    "urllib3": "2.6.3",
}


def caddyfile() -> str:
    found: str = COMPOSE["configs"]["caddyfile"]["content"]
    return found


def test_the_image_holds_what_runs_and_no_more() -> None:
    """Everything is left out but what is named, and what is named holds no history, tests, settings or secrets."""
    rules = (ROOT / ".dockerignore").read_text().split()
    assert rules[0] == "**"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert let_in == {
        "agents",
        "bootstrap.py",
        "graphs",
        "ingest",
        "prompts",
        "requirements.lock",
        "server",
        "storage",
        "tools",
    }
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = {
        name for line in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", dockerfile) for name in line.split()
    }
    assert copied <= let_in
    assert not re.search(r"(?i)^(ENV|ARG)\s.*(SECRET|PASSWORD|API_?KEY|TOKEN)\\w*=", dockerfile, re.MULTILINE)
    assert re.search(r"(?m)^USER secretary$", dockerfile)
    assert "requirements-dev" not in dockerfile
    for name in let_in:
        for path in (ROOT / name).rglob("*"):
            if "__pycache__" not in path.parts:
                assert path.name not in {".git", ".svn", ".env", "conftest.py", "secrets.json"}, path
                assert not fnmatch.fnmatch(path.name, "test_*.py"), path


def test_containers_can_do_little() -> None:
    for name in (*OURS, "proxy"):
        service = COMPOSE["services"][name]
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert "docker.sock" not in str(service.get("volumes")), name


def test_only_the_proxy_with_tls_faces_the_network() -> None:
    published = {
        name
        for name, service in COMPOSE["services"].items()
        if "ports" in service or service.get("network_mode")
    }
    assert published == {"proxy"}
    text = caddyfile()
    # The site is named by its host without a scheme: Caddy serves it by TLS and sends http there.
    assert re.search(r"(?m)^\{\$\$PUBLIC_HOST\} \{$", text)
    assert "http://" not in text
    assert "auto_https" not in text
    assert COMPOSE["x-secretary"]["environment"]["PUBLIC_URL"].startswith("https://")


def test_the_certificate_is_a_public_authority_s() -> None:
    """The proxy asks an authority for its host's certificate; nothing makes it take its own, another's or none."""
    text = caddyfile()
    for word in ("tls internal", "local_certs", "skip_install_trust", "ca ", "tls /", "on_demand"):
        assert word not in text, word
    assert "caddy:/data" in COMPOSE["services"]["proxy"]["volumes"]  # renewals outlive the container


def test_tls_is_modern_on_both_sides() -> None:
    """Caddy 2 speaks TLS 1.2 and 1.3 with suites that have forward secrecy; nothing here asks it for less. We ask others for as much."""
    assert COMPOSE["services"]["proxy"]["image"].split(":")[1].split(".")[0] == "2"
    for word in ("protocols", "ciphers", "curves", "insecure_secrets_log"):
        assert word not in caddyfile(), word
    context = ssl.create_default_context()
    smtp = SMTP(
        "mail.example", 587, implicit_tls=False
    )._tls  # what a transport takes where nobody gives it another
    for one in (context, smtp):
        assert one.minimum_version >= ssl.TLSVersion.TLSv1_2
        assert (one.verify_mode, one.check_hostname) == (ssl.CERT_REQUIRED, True)
        weak = [
            suite["name"]
            for suite in one.get_ciphers()
            if re.search(r"RC4|3DES|NULL|EXPORT|MD5|anon", suite["name"])
        ]
        assert weak == []


def test_a_new_installation_knows_nobody(admin: psycopg.Connection[Any]) -> None:
    """After the migrations: no person, no key, no session, no business but the platform itself."""
    for table in (
        "accounts",
        "members",
        "api_keys",
        "service_accounts",
        "sessions",
        "passkeys",
        "sso_connections",
    ):
        assert admin.execute(f"select count(*) from {table}".encode()).fetchone() == (0,), table
    tenants = admin.execute("select slug from tenants").fetchall()
    assert [slug for (slug,) in tenants if slug != "platform"] == []
    assert OWNER == "owner"
    for path in (ROOT / "server").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"""password\s*=\s*["'][^"'{]{4,}["']""", text, re.IGNORECASE), path


def test_no_component_is_older_than_its_last_known_hole() -> None:
    locked = dict(re.findall(r"(?m)^([a-z0-9._-]+)==(\S+)", (ROOT / "requirements.lock").read_text()))
    for name, mended in MENDED.items():
        assert Version(locked[name]) >= Version(mended), name
    # What runs is what is locked.
    assert {name: locked[name] for name in ("litestar", "cryptography", "pyjwt")} == {
        name: version(name) for name in ("litestar", "cryptography", "pyjwt")
    }
