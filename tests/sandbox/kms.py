"""A sandbox that speaks AWS KMS's JSON wire (X-Amz-Target: TrentService.*): the real boto3 talks to it."""

import base64
import json
import os
import threading
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from litestar import Litestar, Request, Response, post
from litestar.datastructures import State

_PREFIX = "arn:aws:kms:eu-central-1:111122223333:"


@dataclass(frozen=True)
class KmsRequest:
    """A request as it came: operation without its prefix, parsed body, headers in lower case."""

    operation: str
    body: dict[str, Any]
    headers: dict[str, str] = field(repr=False)


class KmsError(Exception):
    """Answered as an AWS error: HTTP 400 with ``__type``."""

    def __init__(self, kind: str, status: int = 400) -> None:
        super().__init__(kind)
        self.kind = kind
        self.status = status


class KmsSandbox:
    """Keys by id and aliases; safe to change from the test's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[str, bytes] = {}
        self._aliases: dict[str, str] = {}
        self._disabled: set[str] = set()
        self._faults: list[KmsError] = []
        self._requests: list[KmsRequest] = []

    def create(self, alias: str) -> str:
        """Make a key and let the alias mean it; returns its ARN."""
        with self._lock:
            arn = f"{_PREFIX}key/{os.urandom(8).hex()}"
            self._keys[arn] = os.urandom(32)
            self._aliases[f"alias/{alias}"] = arn
            return arn

    def disable(self, arn: str) -> None:
        with self._lock:
            self._disabled.add(arn)

    def delete(self, arn: str) -> None:
        with self._lock:
            del self._keys[arn]

    def fault(self, kind: str, status: int = 400, times: int = 1) -> None:
        """Let the next requests fail."""
        with self._lock:
            self._faults += [KmsError(kind, status)] * times

    def requests(self, operation: str = "") -> list[KmsRequest]:
        with self._lock:
            return [request for request in self._requests if operation in ("", request.operation)]

    def release(self) -> None:
        """Nothing waits here."""

    def app(self) -> Litestar:
        """The ASGI app."""
        return Litestar([_handle], state=State({"sandbox": self}), openapi_config=None, logging_config=None)

    def answer(self, request: KmsRequest) -> dict[str, Any]:
        with self._lock:
            self._requests.append(request)
            if "authorization" not in request.headers:
                raise KmsError("MissingAuthenticationTokenException")
            if self._faults:
                raise self._faults.pop(0)
            match request.operation:
                case "DescribeKey":
                    arn = self._find(request.body["KeyId"])
                    return {"KeyMetadata": {"Arn": arn, "KeyId": arn.rpartition("/")[2], "Enabled": True}}
                case "Encrypt":
                    return self._encrypt(request.body)
                case "Decrypt":
                    return self._decrypt(request.body)
                case "GenerateDataKey":
                    plain = base64.b64encode(os.urandom(32)).decode()
                    return {**self._encrypt({**request.body, "Plaintext": plain}), "Plaintext": plain}
            raise KmsError("UnknownOperationException")

    def _find(self, name: str) -> str:
        arn = self._aliases.get(name, name)
        if arn not in self._keys:
            raise KmsError("NotFoundException")
        return arn

    def _usable(self, name: str) -> str:
        arn = self._find(name)
        if arn in self._disabled:
            raise KmsError("DisabledException")
        return arn

    def _encrypt(self, body: dict[str, Any]) -> dict[str, Any]:
        arn, nonce = self._usable(body["KeyId"]), os.urandom(12)
        sealed = AESGCM(self._keys[arn]).encrypt(nonce, base64.b64decode(body["Plaintext"]), _aad(body))
        blob = arn.encode() + b"\n" + nonce + sealed
        return {"KeyId": arn, "CiphertextBlob": base64.b64encode(blob).decode()}

    def _decrypt(self, body: dict[str, Any]) -> dict[str, Any]:
        name, newline, rest = base64.b64decode(body["CiphertextBlob"]).partition(b"\n")
        if not newline:
            raise KmsError("InvalidCiphertextException")
        arn = self._usable(body.get("KeyId", name.decode()))
        if arn.encode() != name:
            raise KmsError("IncorrectKeyException")
        try:
            plain = AESGCM(self._keys[arn]).decrypt(rest[:12], rest[12:], _aad(body))
        except InvalidTag:
            raise KmsError("InvalidCiphertextException") from None
        return {"KeyId": arn, "Plaintext": base64.b64encode(plain).decode()}


def _aad(body: dict[str, Any]) -> bytes:
    return json.dumps(body.get("EncryptionContext", {}), sort_keys=True).encode()


@post("/", status_code=200)
async def _handle(request: Request[Any, Any, State]) -> Response[bytes]:
    sandbox: KmsSandbox = request.app.state.sandbox
    headers = {name.lower(): value for name, value in request.headers.items()}
    operation = headers["x-amz-target"].removeprefix("TrentService.")
    status = 200
    try:
        answer = sandbox.answer(KmsRequest(operation, json.loads(await request.body()), headers))
    except KmsError as error:
        answer, status = {"__type": error.kind, "message": "sandbox"}, error.status
    return Response(json.dumps(answer).encode(), status_code=status, media_type="application/x-amz-json-1.1")
