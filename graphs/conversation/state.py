"""What a thread remembers between turns, and what the nodes of a turn hand on."""

from typing import Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage

KEPT_TURNS = 10


class ConversationState(TypedDict, total=False):
    """Placeholders only: nothing in here is a customer's raw data.

    Attributes:
        messages: what was said in the last turns (one message of the customer, one of ours, each with its
            turn's id) and, during a turn, its calls of tools and their results. No reducer: each node hands
            on the whole list, so a re-run cannot add to it twice.
        turn_id: the turn at work.
        language: of the customer's last message.
        agent: the specialist.
        reduced: a stand-in model took part.
        reply: what supervisor_out let through: text, citations, needs_human.
    """

    messages: list[AnyMessage]
    turn_id: str
    language: str
    agent: str
    reduced: bool
    reply: dict[str, Any]


def said(message: HumanMessage | AIMessage, turn_id: str) -> HumanMessage | AIMessage:
    """Mark a message with its turn."""
    message.additional_kwargs["turn"] = turn_id
    return message


def earlier(messages: list[AnyMessage], turn_id: str) -> list[AnyMessage]:
    """What was said before this turn, at most KEPT_TURNS turns.

    A turn that was killed after its checkpoint is run again on a state that already knows it; it must see
    what it saw the first time.
    """
    turns: list[str] = []
    for message in messages:
        turn = message.additional_kwargs.get("turn")
        if turn and turn != turn_id and turn not in turns:
            turns.append(turn)
    kept = set(turns[-KEPT_TURNS:])
    return [message for message in messages if message.additional_kwargs.get("turn") in kept]


def of_turn(messages: list[AnyMessage], turn_id: str) -> list[AnyMessage]:
    """The messages of the turn at work: from the customer's on."""
    start = next(
        (i for i, message in enumerate(messages) if message.additional_kwargs.get("turn") == turn_id),
        len(messages),
    )
    return messages[start:]
