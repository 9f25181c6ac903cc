"""What a newcomer does: start it, ask, read the source of the answer, stop it; and what an operator has to live through."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fpdf import FPDF
from playwright.async_api import Page, expect

from tests.e2e.installation import Installation, installed, launch, wait_gone, wait_ready

pytestmark = pytest.mark.timeout(240)

QUESTION = "What is the deposit for an e-bike?"
SHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("installation") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def staff(installation: Installation) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=installation.state["api"], timeout=20) as client:
        body = {"tenant": "alpenrad", "email": "staff@alpenrad.example", "password": installation.password}
        token = client.post("/api/v1/auth/login", json=body).raise_for_status().json()["access_token"]
        client.headers["authorization"] = f"Bearer {token}"
        yield client


def page_text(staff: httpx.Client, title: str, page: int) -> str:
    documents = staff.get("/api/v1/knowledge/documents").raise_for_status().json()
    (document,) = [item for item in documents if item["title"] == title]
    answer = staff.get(f"/api/v1/knowledge/documents/{document['id']}/pages/{page}").raise_for_status()
    return str(answer.json()["text"])


def test_chat_answers_with_a_quote_that_stands_in_the_page(
    installation: Installation, staff: httpx.Client
) -> None:
    asked = installation.command("chat", "--json", input=f"{QUESTION}\n")
    assert asked.returncode == 0, asked.stderr
    answer: dict[str, Any] = json.loads(asked.stdout)
    assert set(answer) == {"reply", "agent", "language", "citations", "thread_id", "message_id"}
    assert answer["language"] == "en"
    assert "300 euro" in answer["reply"]
    citation = answer["citations"][0]
    assert (citation["document"], citation["page"]) == ("Alpenrad: Rental Terms", 1)
    assert citation["quote"] in page_text(staff, citation["document"], citation["page"])

    trace = staff.get(f"/api/v1/inbox/messages/{answer['message_id']}/trace").raise_for_status().json()
    assert trace["state"] == "answered"
    assert [step["ordinal"] for step in trace["steps"]] == list(range(len(trace["steps"])))
    assert {"clock", "note", "model", "tool", "id"} == {step["kind"] for step in trace["steps"]}


async def test_the_demo_page_answers_in_a_browser(
    installation: Installation, staff: httpx.Client, page: Page
) -> None:
    await page.goto(installation.state["demo"])
    await page.locator("[data-role=launcher]").click()
    await page.locator("[data-role=input]").fill(QUESTION)
    await page.locator("[data-role=send]").click()
    reply = page.locator("[data-role=reply]").last
    await expect(reply).to_contain_text("300 euro", timeout=20_000)
    citation = page.locator("[data-role=citation]").first
    await citation.locator("summary").click()
    await expect(citation).to_contain_text("Alpenrad: Rental Terms")
    shown = " ".join((await citation.inner_text()).split())
    SHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SHOTS / "widget.png")
    threads = staff.get("/api/v1/inbox/threads").raise_for_status().json()
    messages = staff.get(f"/api/v1/inbox/threads/{threads[0]['id']}/messages").raise_for_status().json()
    stored = messages[-1]["citations"][0]
    text = page_text(staff, stored["document"], stored["page"])
    assert text[stored["start"] : stored["end"]] == stored["quote"]
    assert " ".join(stored["quote"].split()) in shown


async def test_the_api_page_needs_nobody_else(installation: Installation, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(installation.state["docs"])
    await expect(page.locator(".opblock").first).to_be_visible(timeout=20_000)
    assert [url for url in asked if not url.startswith((installation.state["api"], "data:"))] == []


def test_ingest_takes_what_it_can_and_says_what_it_cannot(installation: Installation, tmp_path: Path) -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", size=12)
    pdf.multi_cell(0, 8, "The bicycle museum of Alpenrad opens on the first Sunday of each month.")
    pdf.output(str(tmp_path / "museum.pdf"))
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 this is no PDF")
    done = installation.command("ingest", str(tmp_path / "museum.pdf"), str(tmp_path / "broken.pdf"))
    assert done.returncode == 1
    assert "museum.pdf: ready" in done.stdout
    assert "broken.pdf: parse_failed" in done.stderr
    asked = installation.command("chat", "--json", input="When does the bicycle museum open?\n")
    assert "first Sunday" in json.loads(asked.stdout)["reply"]


def test_wrong_arguments_get_a_sentence(installation: Installation) -> None:
    unknown = installation.command("ingest", "--tenant", "nobody", __file__)
    assert (unknown.returncode, unknown.stderr.strip()) == (1, "error: No tenant is called 'nobody'.")
    assert installation.command("fly").returncode == 2
    second = installation.command("run")
    assert second.returncode == 1
    assert "Another `make run` uses" in second.stderr


def test_what_dies_is_started_again_and_nothing_is_lost(installation: Installation) -> None:
    for name in ("worker-1", "redis", "postgres", "api"):
        state = json.loads((installation.folder / "state.json").read_text())
        psutil.Process(state["children"][name]).send_signal(signal.SIGKILL)
        asked = None
        for _ in range(30):  # the API itself may be on its way back
            asked = installation.command("chat", "--json", input=f"{QUESTION}\n")
            if asked.returncode == 0:
                break
        assert asked is not None
        assert "300 euro" in json.loads(asked.stdout)["reply"], name
    deadline = time.monotonic() + 30
    while (checked := installation.command("invariants")).returncode != 0 and time.monotonic() < deadline:
        time.sleep(0.5)  # a lease that a killed process held has to run out before everything is at rest
    assert checked.returncode == 0, checked.stdout
    assert json.loads(checked.stdout)["ok"] is True


def test_reindex_builds_the_index_anew(installation: Installation) -> None:
    done = installation.command("reindex")
    assert done.returncode == 0, done.stderr
    assert "9 documents indexed" in done.stdout


def test_a_second_one_beside_it_killed_and_started_again(tmp_path: Path) -> None:
    folder = tmp_path / "second"
    killed = launch(folder)
    first = wait_ready(folder, killed)
    family = first.processes()
    killed.kill()
    killed.wait()
    assert wait_gone(family) == []

    again = wait_ready(folder, launch(folder))
    assert again.command("chat", "--json", input=f"{QUESTION}\n").returncode == 0
    family = again.processes()
    again.parent.send_signal(signal.SIGINT)
    assert again.parent.wait(60) == 0
    assert wait_gone(family) == []
    assert not (folder / "state.json").exists()
