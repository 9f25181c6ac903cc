"""The widget's protocol: JSON text frames, at most 16 KB from the client.

Client: hello, msg, got, sync, pong. Server: ready, ack, msg, draft, typing, ping, err. A visitor is who knows
    the session id (256 bits);
only its hash is stored.
"""

import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any

from storage.errors import ValidationFailed
from storage.repositories.threads import Message

MAX_FRAME = 16_384
CLOSE_KEY, CLOSE_ORIGIN, CLOSE_PROTOCOL = 4401, 4403, 4400


@dataclass(frozen=True)
class Hello:
    """A client's first frame: the channel's key, who it was last time, and the last message that it has."""

    key: str
    session_id: str | None
    cursor: int


def parse_frame(data: str) -> dict[str, Any]:
    """A frame as an object.

    Raises:
        ValidationFailed: too long, not JSON, or not an object.
    """
    if len(data.encode("utf-8", "surrogatepass")) > MAX_FRAME:
        raise ValidationFailed("The frame is too long; 16 KB are possible.")
    try:
        frame = json.loads(data)
    except ValueError as error:
        raise ValidationFailed("The frame is not JSON.") from error
    if not isinstance(frame, dict):
        raise ValidationFailed("The frame is not a JSON object.")
    return frame


def parse_hello(frame: dict[str, Any]) -> Hello:
    """The first frame.

    Raises:
        ValidationFailed: it is another frame, or of another version.
    """
    key, session_id, cursor = frame.get("key"), frame.get("sid"), frame.get("cur", 0)
    if frame.get("t") != "hello" or frame.get("v") != 1 or not isinstance(key, str):
        raise ValidationFailed('The first frame must be {"t": "hello", "v": 1, "key": …}.')
    well_formed = isinstance(session_id, str) and 40 <= len(session_id) <= 64 and session_id.isascii()
    return Hello(key, session_id if well_formed else None, parse_cursor(cursor))


def parse_cursor(value: object) -> int:
    """A sequence number from a client; anything else counts as 0, which only means that more is sent."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0


def new_session_id() -> str:
    return secrets.token_urlsafe(32)


def visitor_id(session_id: str) -> str:
    """What is stored of a session id."""
    return "visitor:" + hashlib.sha256(session_id.encode()).hexdigest()


def message_frame(message: Message) -> dict[str, Any]:
    """A stored message as the widget shows it."""
    mine = message.direction == "in"
    citations = [{key: item[key] for key in ("n", "document", "page", "quote")} for item in message.citations]
    return {
        "t": "msg",
        "seq": message.seq,
        "id": str(message.id),
        "me": int(mine),
        "cid": message.external_id,
        "text": message.text,
        "at": message.created_at.isoformat(),
        "agent": message.agent,
        "language": message.language,
        "citations": citations,
        "reduced": message.reduced,
        "re": str(message.in_reply_to) if message.in_reply_to else None,
        "turn": str(message.turn_id) if message.turn_id else None,
    }


def error_frame(code: str, message: str, cid: object = None, retry: float | None = None) -> dict[str, Any]:
    frame: dict[str, Any] = {"t": "err", "code": code, "message": message}
    if isinstance(cid, str):
        frame["cid"] = cid
    if retry is not None:
        frame["retry"] = retry
    return frame
