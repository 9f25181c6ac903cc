"""What the product's source never does, read from its syntax trees. semgrep has some of the same rules; these run with the suite and need
no other environment.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from storage.crypto import envelope

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agents", "graphs", "ingest", "prompts", "server", "storage", "tools")
# Draws that nobody gains from guessing: when to try again.
JITTER = {"server/jobs/mail.py", "server/jobs/inbox.py", "server/jobs/outbox.py"}
CODE_FROM_DATA = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "pickle.load", "pickle.loads", "marshal.load", "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load", "os.system", "os.popen",
    "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell",
}  # fmt: skip
APPROVED_HASHES = {"sha256", "sha384", "sha512", "scrypt", "SHA256", "SHA384", "SHA512"}


@cache
def sources() -> dict[str, ast.Module]:
    """Path -> tree of each file of the product."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in files}


def every(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield path, node


def at(path: str, node: Any) -> str:
    return f"{path}:{node.lineno}"


def calls() -> Iterator[tuple[str, ast.Call, str]]:
    """(path, call, its name as it is written)."""
    for path, node in every(ast.Call):
        yield path, node, ast.unparse(node.func)


def imports() -> Iterator[tuple[str, str]]:
    """(path, full name of what is imported)."""
    for path, node in every(ast.Import):
        yield from ((path, one.name) for one in node.names)
    for path, node in every(ast.ImportFrom):
        yield from ((path, f"{node.module}.{one.name}") for one in node.names)


def test_the_whole_product_is_read() -> None:
    assert len(sources()) > 200
    assert {path.split("/")[0] for path in sources()} == set(PACKAGES)


def test_no_data_becomes_code_or_a_command() -> None:
    found = [at(path, call) for path, call, name in calls() if name in CODE_FROM_DATA | CALLS]
    found += [
        at(path, call)
        for path, call, _ in calls()
        for word in call.keywords
        if word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
    ]
    found += [
        path
        for path, name in imports()
        if name.split(".")[0] in {"pickle", "marshal", "shelve", "dill", "cloudpickle", "code"}
    ]
    assert found == []


def test_checkpoints_hold_known_types_only() -> None:
    """A stored value that names a function of its own choice is not called; each process says so before LangGraph is loaded."""
    started = (ROOT / "server/__main__.py").read_text()
    assert 'setdefault("LANGGRAPH_STRICT_MSGPACK", "true")' in started
    serializer = JsonPlusSerializer()
    for kind in ("pickle", "unknown"):
        with pytest.raises(NotImplementedError):
            serializer.loads_typed((kind, b"cos\nsystem\n(S'true'\ntR."))


CAPITALS = re.compile(r"_?[A-Z][A-Z0-9_]*")
# Names of tables, columns and conditions come from the column registry or the metadata there, and from nowhere else.
FROM_REGISTRY = re.compile(
    r"storage/(sealing|privacy/\w+|repositories/(invariants|key_rotation|retention)|migrations/.*)\.py"
)
# Read one by one: made of constants, or of words that went through re.escape a line before.
REVIEWED_PATTERNS = {
    "agents/offline_relevance.py: pattern",
    "agents/supervisor/pii_engine.py: start",
    "storage/placeholders.py: '|'.join([*parts, PLACEHOLDER.pattern])",
}
# Texts of the repository: replies of the offline model (prompts/shared/offline.yaml) and the letter in an export.
REVIEWED_FORMATS = {"agents/offline_examples.py", "storage/privacy/export.py"}


def is_constant(node: ast.expr) -> bool:
    """Whether a text is put together from texts of the source alone."""
    if isinstance(node, ast.JoinedStr):
        holes = (part.value for part in node.values if isinstance(part, ast.FormattedValue))
        return all(CAPITALS.fullmatch(ast.unparse(hole)) for hole in holes)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Add) and is_constant(node.left) and is_constant(node.right)
    if isinstance(node, ast.IfExp):
        return is_constant(node.body) and is_constant(node.orelse)
    return isinstance(node, ast.Constant) or bool(CAPITALS.fullmatch(ast.unparse(node)))


def test_no_value_is_written_into_sql() -> None:
    seen = 0
    for path, call, name in calls():
        if name in {"text", "sqlalchemy.text"} and call.args:
            value = call.args[0]
            seen += 1
            made = isinstance(value, ast.JoinedStr | ast.BinOp | ast.IfExp)
            assert not made or is_constant(value) or FROM_REGISTRY.fullmatch(path), at(path, call)
            if isinstance(value, ast.Call):  # a template of the module, filled with texts of the source
                filled = [one.value for one in value.keywords]
                assert ast.unparse(value.func) == "_STANDING.format", at(path, call)
                assert all(is_constant(one) for one in filled), at(path, call)
    assert seen > 200
    assert not is_constant(ast.parse("f'select {name}'", mode="eval").body)
    assert not is_constant(ast.parse("'select ' + name", mode="eval").body)


def test_regular_expressions_are_constants_or_escaped() -> None:
    found = set()
    for path, call, name in calls():
        if (
            re.fullmatch(r"re\.(compile|match|fullmatch|search|findall|finditer|sub|subn|split)", name)
            and call.args
        ):
            pattern = call.args[0]
            if isinstance(pattern, ast.JoinedStr):
                holes = [
                    ast.unparse(part.value) for part in pattern.values if isinstance(part, ast.FormattedValue)
                ]
                free = {
                    hole for hole in holes if not re.fullmatch(r"_?[A-Z][A-Z0-9_]*|re\.escape\(.*\)", hole)
                }
                found |= {f"{path}: {hole}" for hole in free}
            elif not is_constant(pattern):
                found.add(f"{path}: {ast.unparse(pattern)}")
    assert found == REVIEWED_PATTERNS


def test_format_strings_are_constants() -> None:
    """``str.format`` reaches attributes and widths: only texts of the source are ever formatted."""
    found = set()
    for path, call, _ in calls():
        if isinstance(call.func, ast.Attribute) and call.func.attr in {"format", "format_map"}:
            what = call.func.value
            composed = (
                isinstance(what, ast.Call)
                and ast.unparse(what.func) == "sql.SQL"
                and is_constant(what.args[0])
            )
            if not is_constant(what) and not composed:
                found.add(path)
    assert found == REVIEWED_FORMATS


def test_no_xml_parser_is_used() -> None:
    """Nothing takes XML. HTML is read by trafilatura in the confined child; what an entity does there is tried in test_content.py."""
    found = {
        (path, name)
        for path, name in imports()
        if name.split(".")[0] in {"xml", "lxml", "defusedxml", "xmltodict"}
    }
    assert found == set()


def test_cryptography_comes_from_the_libraries_that_are_named() -> None:
    used = {name.split(".")[0] for _, name in imports()}
    assert (
        used & {"Crypto", "Cryptodome", "rsa", "ecdsa", "nacl", "M2Crypto", "passlib", "bcrypt", "tinyec"}
        == set()
    )
    primitives = {path for path, name in imports() if name.startswith("cryptography.")}
    assert {path.rsplit("/", 1)[0] for path in primitives} <= {"storage/crypto", "server/auth", "storage"}


def test_only_approved_primitives_are_named() -> None:
    for path, call, name in calls():
        if re.fullmatch(r"hashlib\.\w+", name):
            words = {word.arg: word.value for word in call.keywords}
            no_security = "usedforsecurity" in words and ast.unparse(words["usedforsecurity"]) == "False"
            assert name.removeprefix("hashlib.") in APPROVED_HASHES or no_security, at(path, call)
        if name == "hmac.new":
            assert ast.unparse(call.args[2]).removeprefix("hashlib.") in APPROVED_HASHES, at(path, call)
    hazmat = {
        name.removeprefix("cryptography.hazmat.primitives.")
        for _, name in imports()
        if "hazmat.primitives" in name
    }
    for name in hazmat:
        assert not re.search(
            r"(?i)ecb|cbc|ctr|modes|pkcs1|padding|md5|sha1$|arc4|des|blowfish|cast5|idea|seed|decrepit", name
        ), name
    assert any(name.startswith("ciphers.aead.AESGCM") for name in hazmat)
    source = Path(envelope.__file__).read_text()
    assert "AESGCM" in source


def test_secrets_come_from_the_system_s_generator() -> None:
    assert {path for path, name in imports() if name == "random" or name.startswith("random.")} == JITTER
    assert [path for path, name in imports() if name.startswith("numpy.random")] == []
    short = [
        at(path, call)
        for path, call, name in calls()
        if name in {"secrets.token_bytes", "secrets.token_hex", "secrets.token_urlsafe"}
        and not (call.args and int(ast.unparse(call.args[0])) >= 12)
    ]
    # A tenant's short name that is taken gets six digits more; it is public.
    assert [place.split(":")[0] for place in short] == ["server/auth/tenants.py"]
    named = re.compile(r"(?i)token|secret|password|nonce|challenge|cookie|otp|verifier|api_key")
    for path, node in every(ast.Assign):
        if "uuid4(" in ast.unparse(node.value) and named.search(
            " ".join(ast.unparse(one) for one in node.targets)
        ):
            assert path == "storage/repositories/outbox.py", at(path, node)  # a lease's fence, not a secret


def test_secrets_are_compared_in_constant_time() -> None:
    """Digests and codes are compared by compare_digest or looked up by an index; never with ``==``."""
    named = re.compile(
        r"(?i)(^|[._])(digest|mac|hmac|signature|otp|state|nonce|password|secret|token|code_hash|token_hash)$"
    )
    for path, node in every(ast.Compare):
        if path.startswith("server/auth") and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
            if all(named.search(side) for side in sides):
                raise AssertionError(f"{at(path, node)}: {ast.unparse(node)}")
    users = {path for path, _, name in calls() if name.endswith("compare_digest")}
    assert users >= {
        "server/auth/totp.py",
        "server/auth/api_keys.py",
        "server/auth/devices.py",
        "server/auth/oidc.py",
    }


def test_no_certificate_is_left_unverified() -> None:
    for path, call, name in calls():
        for word in call.keywords:
            off = isinstance(word.value, ast.Constant) and word.value.value is False
            assert not (word.arg in {"verify", "validate_certs", "check_hostname", "verify_ssl"} and off), at(
                path, call
            )
            assert not (
                word.arg in {"cert_reqs", "ssl_cert_reqs"} and "NONE" in ast.unparse(word.value).upper()
            ), at(path, call)
        assert "_create_unverified_context" not in name, at(path, call)
    for path, node in every(ast.Assign):
        said = ast.unparse(node)
        assert not re.search(r"verify_mode = ssl\.CERT_NONE|check_hostname = False", said), at(path, node)


def test_no_client_follows_redirects_by_itself() -> None:
    for path, call, name in calls():
        for word in call.keywords:
            follows = word.arg in {"follow_redirects", "allow_redirects"}
            assert not follows or ast.unparse(word.value) == "False", at(path, call)
        assert not name.startswith(("requests.", "aiohttp.")), at(path, call)
