"""Where it goes on."""

from typing import Literal

from langchain_core.messages import AIMessage

from agents.toolbox import CALL_PERSON
from graphs.conversation.state import ConversationState, of_turn

MAX_THOUGHTS = 5


def after_specialist(state: ConversationState) -> Literal["tools", "supervisor_out"]:
    """Tools while the specialist calls some and has thoughts left; a call for a person ends the turn at once."""
    own = of_turn(state["messages"], state["turn_id"])
    last = own[-1]
    assert isinstance(last, AIMessage)
    names = {call["name"] for call in last.tool_calls}
    thoughts = sum(isinstance(message, AIMessage) for message in own)
    return "tools" if names and CALL_PERSON not in names and thoughts < MAX_THOUGHTS else "supervisor_out"
