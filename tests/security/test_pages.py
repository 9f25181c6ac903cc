"""The scripts and pages that browsers run, read as texts; what they do in a browser is shown by tests/e2e."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATIC = (ROOT / "server/channels/widget/static", ROOT / "server/api/auth/static")
SCRIPTS = sorted(path for folder in STATIC for path in folder.glob("*.js"))
PAGES = sorted(path for folder in STATIC for path in folder.glob("*.html"))
WIDGET, ACCOUNT = STATIC[0] / "widget.js", STATIC[1] / "account.js"
# Ways from a text to an element or to code.
MARKUP = (
    "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "createContextualFragment", "DOMParser", "srcdoc", "setHTMLUnsafe",
    "eval(", "new Function", "Function(", "import(", "javascript:", "setTimeout('", 'setTimeout("', "setInterval('", 'setInterval("',
)  # fmt: skip
DEAD = (
    "ActiveX",
    "<applet",
    "<object",
    "<embed",
    "navigator.plugins",
    "Flash",
    "document.all",
    "XMLHttpRequest",
    "with (",
)


def without_comments(text: str) -> str:
    return re.sub(r"(?m)(^|\s)//.*$", "", re.sub(r"(?s)/\*.*?\*/", "", text))


def code(path: Path) -> str:
    return without_comments(path.read_text(encoding="utf-8"))


def test_all_scripts_are_looked_at() -> None:
    assert [path.name for path in SCRIPTS] == ["account.js", "widget.js"] or len(SCRIPTS) > 2
    assert {"demo.html", "account.html"} <= {path.name for path in PAGES}
    others = [path for path in (ROOT / "server").rglob("*.js") if path not in SCRIPTS]
    assert others == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_markup_out_of_text(path: Path) -> None:
    assert [way for way in MARKUP if way in code(path)] == []
    assert ".textContent = " in code(path) or "createTextNode" in code(path)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_listen_to_no_other_window(path: Path) -> None:
    text = code(path)
    listened = set(re.findall(r"addEventListener\(\s*['\"](\w+)['\"]", text)) | set(
        re.findall(r"(?:window|self)\.on(\w+)\s*=", text)
    )
    assert listened, "the pattern finds no listener at all"
    assert "message" not in listened
    for word in ("postMessage", "BroadcastChannel", "window.opener", "window.parent", "window.name"):
        assert word not in text, word


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_have_no_scripts_of_their_own(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    assert re.search(r"(?i)\son\w+\s*=", page) is None
    assert [
        found
        for found in re.findall(r"(?is)<script([^>]*)>(.*?)</script>", page)
        if found[1].strip() or "src=" not in found[0]
    ] == []
    assert "javascript:" not in page
    assert [way for way in DEAD if way in page] == []
    for script in SCRIPTS:
        assert [way for way in DEAD if way in code(script)] == []


def test_password_fields_hide_and_let_managers_work() -> None:
    page = (STATIC[1] / "account.html").read_text(encoding="utf-8")
    fields = re.findall(r'<input[^>]*\bid="[^"]*password[^"]*"[^>]*>', page)
    assert len(fields) == 1
    for field in fields:
        assert 'type="password"' in field
        assert 'autocomplete="new-password"' in field
        assert int(re.findall(r'maxlength="(\d+)"', field)[0]) >= 64
        assert "readonly" not in field
    text = code(ACCOUNT)
    for word in ("onpaste", "'paste'", '"paste"', "onkeydown", "contextmenu", "'copy'"):
        assert word not in page + text, word


def test_the_account_page_keeps_nothing() -> None:
    text = code(ACCOUNT)
    for store in ("localStorage", "sessionStorage", "indexedDB", "document.cookie", "caches."):
        assert store not in text, store
    # The token leaves the address bar and the history before anything else happens.
    assert text.index("history.replaceState") < text.index("fetch(")


def test_links_in_messages_are_web_addresses() -> None:
    """The only place where the widget makes a link takes what begins with http:// or https://, and no reference back."""
    text = code(WIDGET)
    assert text.count("href:") == 1
    assert re.search(r"text\.split\(/\(https\?:\\/\\/", text)
    assert "rel: 'noopener noreferrer'" in text
    assert re.findall(r"location\s*=|location\.href\s*=|window\.open\(", text + code(ACCOUNT)) == []


def test_the_socket_is_as_encrypted_as_its_script() -> None:
    text = code(WIDGET)
    assert "new URL('socket', script.src)" in text
    assert "address.protocol = address.protocol.replace('http', 'ws')" in text  # https becomes wss
    assert re.findall(r"new WebSocket\((.*?)\)", text) == ["address"]
    assert "ws://" not in text


def test_a_name_from_outside_reaches_no_prototype() -> None:
    """What the address or the server names is looked up among own properties only."""
    account, widget = code(ACCOUNT), code(WIDGET)
    assert "Object.hasOwn(ADDRESSES, purpose)" in account
    assert re.findall(r"\w+ in [A-Z]\w*", account + widget) == []
    for text in (account, widget):
        assert "__proto__" not in text
        assert re.search(r"\[[^\]\n]*\]\[[^\]\n]*\]\s*=[^=]", text) is None, "a nested assignment by names"
    # Sources are kept by number: the text between the brackets is digits only.
    assert r"\[\d+\]" in widget
