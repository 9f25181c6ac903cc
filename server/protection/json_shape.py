"""How deep and how wide a JSON text is, told without decoding it: a decoder's stack and memory are what is protected."""

import re

from server.protection.errors import MalformedRequest

MAX_DEPTH = 32
MAX_MEMBERS = 10_000

# A string, or one that does not end. Possessive, and never without a match: a text of backslashes and quotes costs linear time.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_EMPTY = re.compile(rb"\[[ \t\r\n]*+\]|\{[ \t\r\n]*+\}")
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


def check_json_shape(text: bytes) -> None:
    """Refuse what is nested deeper than 32 or has more than 10,000 members in all its arrays and objects together.

    Whether it is JSON at all is the decoder's business.

    Raises:
        MalformedRequest: too deep or too wide.
    """
    opens = text.count(b"[") + text.count(b"{")
    if opens <= MAX_DEPTH and opens + text.count(b",") <= MAX_MEMBERS:
        return  # true of nearly every request: strings only make the counts larger
    bare = _STRING.sub(b'"', text)
    opens = bare.count(b"[") + bare.count(b"{")
    if bare.count(b",") + opens - len(_EMPTY.findall(bare)) > MAX_MEMBERS or opens > MAX_MEMBERS:
        raise MalformedRequest(f"The JSON has more than {MAX_MEMBERS} members.", max_members=MAX_MEMBERS)
    depth = 0
    for bracket in bare.translate(None, _NO_BRACKET):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise MalformedRequest(f"The JSON is nested deeper than {MAX_DEPTH}.", max_depth=MAX_DEPTH)
