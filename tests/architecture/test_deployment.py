"""The files by which others run us say what is true."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from graphs.conversation.graph import make_graph
from server.__main__ import parser

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_compose_is_valid_by_its_schema() -> None:
    tool = Path(sys.executable).parent / "check-jsonschema"
    checked = subprocess.run(
        [tool, "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_container_of_ours_runs_a_command_that_exists() -> None:
    ours = {
        name: service
        for name, service in COMPOSE["services"].items()
        if service.get("image") == "ai-secretary"
    }
    assert set(ours) == {"migrate", "seed", "api", "worker"}
    for service in ours.values():
        assert parser().parse_args(service["command"]).command == service["command"][0]


def test_only_the_proxy_is_published() -> None:
    published = {
        name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service
    }
    assert published == {"proxy": ["80:80", "443:443", "443:443/udp"]}


def test_the_proxy_reaches_the_api_alone_and_is_alone_believed() -> None:
    services, networks = COMPOSE["services"], COMPOSE["networks"]
    assert {name for name, service in services.items() if "edge" in service["networks"]} == {"api", "proxy"}
    assert services["proxy"]["networks"] == ["edge", "front"]
    (subnet,) = (entry["subnet"] for entry in networks["edge"]["ipam"]["config"])
    assert services["api"]["environment"]["TRUSTED_PROXIES"] == subnet
    assert networks["edge"]["internal"] is True


def test_no_container_runs_with_a_secret_that_stands_in_the_file() -> None:
    for name, service in COMPOSE["services"].items():
        for key, value in service.get("environment", {}).items():
            if any(word in key for word in ("KEY", "PASSWORD", "SECRET", "TOKEN")):
                assert str(value).startswith("${"), f"{name}: {key}"


def test_the_administrator_s_password_is_given_to_migrate_alone() -> None:
    holders = {
        name
        for name, service in COMPOSE["services"].items()
        if "${POSTGRES_PASSWORD}" in str(service.get("environment", {}).get("DATABASE_URL", ""))
    }
    assert holders == {"migrate"}


def test_langgraph_json_names_the_graph() -> None:
    named = json.loads((ROOT / "langgraph.json").read_text())["graphs"]["conversation"]
    path, function = named.split(":")
    assert (ROOT / path).is_file()
    assert function == make_graph.__name__
    assert set(make_graph().get_graph().nodes) == {
        "__start__",
        "supervisor_in",
        "router",
        "specialist",
        "tools",
        "supervisor_out",
        "__end__",
    }


def test_the_lock_pins_with_hashes_and_names_no_host() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        lock = (ROOT / name).read_text()
        assert "://" not in lock
        assert "index-url" not in lock
        entries = re.findall(
            r"^([a-z0-9][a-z0-9._-]*)==\S+(?: ;[^\\]*)? \\\n    --hash=sha256:", lock, re.MULTILINE
        )
        pins = re.findall(r"^[a-z0-9][a-z0-9._-]*==", lock, re.MULTILINE)
        assert len(entries) == len(pins) > 150
        assert not {"torch", "transformers", "sentence-transformers"} & set(entries)


def test_the_runtime_lock_is_part_of_the_development_lock() -> None:
    pins = [
        set(re.findall(r"^\S+==\S+", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    ]
    assert pins[0] < pins[1]


def test_make_is_there_for_the_two_commands() -> None:
    make = shutil.which("make")
    assert make is not None
    text = subprocess.run([make, "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"run", "test", "check", "bench", "chaos"} <= {line.split()[0] for line in text.splitlines()}
