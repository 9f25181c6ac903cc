"""A model that never answers the same way twice: what a re-run would do differently shows."""

import itertools
import json
import re
import threading
from collections import Counter
from typing import Any

from tests.sandbox.openai import Reply, ToolCall

ROUTE = json.dumps({"agent": "sales", "confidence": 0.9, "language": "en"})
_QUESTION = re.compile(r"question (\w+) about ([\w-]+)")


class FickleModel:
    """Answers ``question <which> about <topic>``; counts what it was asked, by (topic, which).

    ``question one`` becomes a lead (three requests: route, tool call, answer), any other is answered at once
    (two requests).
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self.asked: Counter[tuple[str, str]] = Counter()

    def __call__(self, body: dict[str, Any]) -> Reply:
        messages = body["messages"]
        text = next(str(item["content"]) for item in reversed(messages) if item["role"] == "user")
        which, topic = _QUESTION.findall(text)[-1]
        with self._lock:
            number = next(self._numbers)
            self.asked[topic, which] += 1
        if not body.get("tools"):
            return Reply(text=ROUTE)
        if which == "one" and messages[-1]["role"] != "tool":
            call = ToolCall("crm_create_lead", {"subject": f"bike offer {number}", "email": "⟦EMAIL_1⟧"})
            return Reply(tool_calls=(call,))
        return Reply(text=f"Answer {number} to question {which}.")
