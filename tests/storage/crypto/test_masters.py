"""Master keys out of the environment, a file, a local folder, and AWS KMS as boto3 speaks it."""

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr

from storage.crypto.envelope import Tampered
from storage.crypto.kms import AwsKms, LocalKms
from storage.crypto.masters import KeyContext, MasterKeyMissing, MasterKeys, masters_from, new_master_key
from storage.crypto.settings import CryptoSettings
from storage.errors import ConfigurationError, UpstreamUnavailable
from tests.sandbox.kms import KmsSandbox
from tests.sandbox.server import serve

CONTEXT = KeyContext(UUID(int=1), "tenant", UUID(int=1), UUID(int=9))
FOREIGN = KeyContext(UUID(int=2), "tenant", UUID(int=2), UUID(int=9))
PLAIN = bytes(range(32))
NEW, OLD = new_master_key(), new_master_key()


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite's own master key is not among those that a test has set."""
    monkeypatch.delenv("MASTER_KEYS", raising=False)


NEW_ID, OLD_ID = NEW.split(":")[0], OLD.split(":")[0]


def from_environment(*entries: str) -> MasterKeys:
    return masters_from(CryptoSettings(master_keys=SecretStr(",".join(entries))))


async def works(masters: MasterKeys) -> str:
    """Round trip, and refusal of what does not belong; returns the id that wrapped."""
    key_id, blob = await masters.wrap(PLAIN, CONTEXT)
    assert key_id == await masters.current_id()
    assert PLAIN not in blob
    assert await masters.unwrap(key_id, blob, CONTEXT) == PLAIN
    with pytest.raises(Tampered):
        await masters.unwrap(key_id, blob, FOREIGN)
    for changed in (blob[:-1] + bytes([blob[-1] ^ 1]), b"", blob[:5]):
        with pytest.raises(Tampered):
            await masters.unwrap(key_id, changed, CONTEXT)
    return key_id


async def test_the_first_key_of_the_environment_wraps_and_the_others_unwrap() -> None:
    assert await works(from_environment(NEW, OLD)) == NEW_ID
    key_id, blob = await from_environment(OLD).wrap(PLAIN, CONTEXT)
    assert key_id == OLD_ID
    assert await from_environment(NEW, OLD).unwrap(OLD_ID, blob, CONTEXT) == PLAIN
    with pytest.raises(MasterKeyMissing) as missing:
        await from_environment(NEW).unwrap(OLD_ID, blob, CONTEXT)
    assert missing.value.key_id == OLD_ID


async def test_another_key_of_the_same_id_is_found_out() -> None:
    key_id, blob = await from_environment(f"{OLD_ID}:{NEW.split(':')[1]}").wrap(PLAIN, CONTEXT)
    with pytest.raises(Tampered):
        await from_environment(OLD).unwrap(key_id, blob, CONTEXT)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ("", "Exactly one of"),
        ("no-colon", "Master key 1 is not written as id:base64"),
        (f"{NEW},a b:xx", "Master key 2 is not written as id:base64"),
        ("a:not base64!", "'a' is not 32 bytes"),
        ("a:" + base64.b64encode(bytes(16)).decode(), "'a' is not 32 bytes"),
        (f"{NEW},{NEW}", "is given twice"),
        (",", "No master key is given"),
    ],
    ids=["nothing", "no colon", "a blank in an id", "not base64", "too short", "twice", "empty entries"],
)
def test_wrong_entries_are_named_and_not_repeated(
    entries: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_KEYS", entries)
    with pytest.raises(ConfigurationError, match=says) as error:
        masters_from(CryptoSettings())
    assert "not base64!" not in error.value.message


async def test_a_file_of_keys_is_read_where_nobody_else_can(tmp_path: Path) -> None:
    path = tmp_path / "master.keys"
    path.write_text(f"# kept in the safe\n{NEW}\n\n{OLD}\n")
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="Others may read"):
        masters_from(CryptoSettings(master_key_file=path))
    path.chmod(0o600)
    assert await works(masters_from(CryptoSettings(master_key_file=path))) == NEW_ID
    with pytest.raises(ConfigurationError, match="cannot be read"):
        masters_from(CryptoSettings(master_key_file=tmp_path / "none"))


def test_two_sources_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Exactly one"):
        masters_from(CryptoSettings(master_keys=SecretStr(NEW), master_kms=f"local:{tmp_path}"))


@pytest.mark.parametrize("kms", ["local:", "aws:", "vault:x", "alias/x"])
def test_an_unknown_service_is_refused(kms: str) -> None:
    with pytest.raises(ConfigurationError, match="MASTER_KMS is written as"):
        masters_from(CryptoSettings(master_kms=kms))


async def test_a_local_folder_rotates_under_a_running_process(tmp_path: Path) -> None:
    folder = tmp_path / "kms"
    running = masters_from(CryptoSettings(master_kms=f"local:{folder}"))
    with pytest.raises(ConfigurationError, match="no current master key"):
        await running.current_id()
    first = LocalKms(folder).generate()
    assert await works(running) == first
    _, blob = await running.wrap(PLAIN, CONTEXT)
    second = LocalKms(folder).generate()
    assert await works(running) == second
    assert await running.unwrap(first, blob, CONTEXT) == PLAIN
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    for missing in ("mk-none", "../kms/current", ""):
        with pytest.raises(MasterKeyMissing):
            await running.unwrap(missing, blob, CONTEXT)
    (folder / f"{first}.key").chmod(0o644)
    with pytest.raises(ConfigurationError, match="Others may read"):
        await LocalKms(folder).unwrap(first, blob, CONTEXT)


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[KmsSandbox]:
    sandbox = KmsSandbox()
    with serve(sandbox) as url:
        for name, value in {
            "AWS_ENDPOINT_URL_KMS": url,
            "AWS_REGION": "eu-central-1",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "sandbox",
            "AWS_SECRET_ACCESS_KEY": "sandbox",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            monkeypatch.setenv(name, value)
        yield sandbox


async def test_aws_kms_wraps_with_the_tenant_in_the_encryption_context(kms: KmsSandbox) -> None:
    arn = kms.create("secretary")
    masters = masters_from(CryptoSettings(master_kms="aws:alias/secretary"))
    key_id, blob = await masters.wrap(PLAIN, CONTEXT)
    assert key_id == arn == await masters.current_id()
    assert await masters.unwrap(key_id, blob, CONTEXT) == PLAIN
    with pytest.raises(Tampered):
        await masters.unwrap(key_id, blob, FOREIGN)
    with pytest.raises(Tampered):
        await masters.unwrap(key_id, b"no ciphertext", CONTEXT)
    request = kms.requests("Encrypt")[0]
    assert request.body["KeyId"] == "alias/secretary"
    assert request.body["EncryptionContext"]["tenant"] == str(CONTEXT.tenant_id)
    assert "kms/aws4_request" in request.headers["authorization"]


async def test_after_the_alias_moved_old_blobs_open_and_new_ones_are_under_the_new_key(
    kms: KmsSandbox,
) -> None:
    old = kms.create("secretary")
    masters = AwsKms("alias/secretary", 5.0)
    key_id, blob = await masters.wrap(PLAIN, CONTEXT)
    new = kms.create("secretary")
    assert (key_id, await masters.current_id()) == (old, new)
    assert await masters.unwrap(old, blob, CONTEXT) == PLAIN
    with pytest.raises(Tampered):
        await masters.unwrap(new, blob, CONTEXT)
    kms.disable(old)
    with pytest.raises(MasterKeyMissing) as error:
        await masters.unwrap(old, blob, CONTEXT)
    assert error.value.key_id == old
    kms.delete(new)
    with pytest.raises(MasterKeyMissing):
        await masters.wrap(PLAIN, CONTEXT)


async def test_a_throttled_kms_is_asked_again_and_a_broken_one_is_reported(kms: KmsSandbox) -> None:
    kms.create("secretary")
    masters = AwsKms("alias/secretary", 5.0)
    kms.fault("ThrottlingException")
    await masters.wrap(PLAIN, CONTEXT)
    assert len(kms.requests("Encrypt")) == 2
    kms.fault("KMSInternalException", 500, times=3)
    with pytest.raises(UpstreamUnavailable, match="KMSInternalException"):
        await masters.wrap(PLAIN, CONTEXT)


async def test_a_kms_that_is_away_is_reported(kms: KmsSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    with pytest.raises(UpstreamUnavailable, match="does not answer"):
        await AwsKms("alias/secretary", 1.0).current_id()


def test_without_boto3_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match=r"install ai-secretary\[aws\]"):
        masters_from(CryptoSettings(master_kms="aws:alias/secretary"))


def test_new_keys_differ() -> None:
    assert len({new_master_key() for _ in range(100)}) == 100
