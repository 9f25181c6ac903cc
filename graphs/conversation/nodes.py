"""The nodes: each does one thing and hands on what changed. What they think with is in agents/."""

from uuid import UUID

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.runtime import Runtime

from agents import router as routing
from agents import specialist
from agents.supervisor.screen_in import screen_in
from agents.supervisor.screen_out import Checked, Page, check_citations
from agents.toolbox import CALL_PERSON, passages_in
from graphs.context import TurnContext
from graphs.conversation.state import ConversationState, earlier, of_turn, said
from graphs.drafts import Drafter
from storage.repositories import knowledge


async def supervisor_in(state: ConversationState, runtime: Runtime[TurnContext]) -> ConversationState:
    """Mask what came in; from here on there are placeholders only."""
    turn = runtime.context
    turn_id = str(turn.claim.turn_id)
    screened = screen_in(
        [m.text for m in turn.claim.messages], turn.mind.masker, turn.vault, turn.guesser, turn.claim.language
    )
    turn.journal.note("screened", {"text": screened.text, "language": screened.language})
    return {
        "messages": [
            *earlier(state.get("messages", []), turn_id),
            said(HumanMessage(screened.text), turn_id),
        ],
        "turn_id": turn_id,
        "language": screened.language,
        "reduced": False,
        "reply": {},
    }


async def router(state: ConversationState, runtime: Runtime[TurnContext]) -> ConversationState:
    """Choose the specialist."""
    turn = runtime.context
    name, reduced = await routing.route(
        turn.mind.gateway,
        turn.journal,
        turn.snapshot,
        state["messages"],
        tenant_name=turn.info.name,
        languages=turn.info.languages,
        language=state["language"],
        current=turn.claim.agent,
    )
    return {"agent": name, "reduced": reduced}


async def specialist_node(state: ConversationState, runtime: Runtime[TurnContext]) -> ConversationState:
    """Let the specialist think once: an answer, or calls of tools."""
    turn = runtime.context
    drafter = Drafter(turn.vault, turn.draft)
    thought = await specialist.consider(
        turn.snapshot.agents[state["agent"]],
        turn.mind.gateway,
        turn.journal,
        turn.mind.registry,
        state["messages"],
        tenant_name=turn.info.name,
        language=state["language"],
        now=turn.conversation.now,
        time_zone=turn.info.time_zone,
        on_delta=drafter.feed,
    )
    return {"messages": [*state["messages"], thought.message], "reduced": state["reduced"] or thought.reduced}


async def tools(state: ConversationState, runtime: Runtime[TurnContext]) -> ConversationState:
    """Carry out what the specialist called, in order."""
    turn = runtime.context
    message = state["messages"][-1]
    assert isinstance(message, AIMessage)
    agent = turn.snapshot.agents[state["agent"]]
    results = await turn.toolbox.carry_out(agent, message, of_turn(state["messages"], state["turn_id"]))
    return {"messages": [*state["messages"], *results]}


async def supervisor_out(state: ConversationState, runtime: Runtime[TurnContext]) -> ConversationState:
    """Check the answer, and reduce the turn to what was said."""
    turn = runtime.context
    own = of_turn(state["messages"], state["turn_id"])
    checked, needs_human = await _checked(own, state["language"], turn)
    if state["reduced"]:
        note = turn.mind.library.reply("reduced", state["language"])
        checked = Checked(f"{note} {checked.text}", checked.citations, checked.dropped)
    turn.journal.note(
        "checked",
        {"citations": len(checked.citations), "dropped": checked.dropped, "needs_human": needs_human},
    )
    reply = said(AIMessage(checked.text), state["turn_id"])
    before: list[AnyMessage] = earlier(state["messages"], state["turn_id"])
    return {
        "messages": [*before, own[0], reply],
        "reply": {"text": checked.text, "citations": checked.citations, "needs_human": needs_human},
    }


async def _checked(own: list[AnyMessage], language: str, turn: TurnContext) -> tuple[Checked, bool]:
    """The reply that may leave, and whether a person is wanted."""
    last = own[-1]
    assert isinstance(last, AIMessage)
    handoff = Checked(turn.mind.library.reply("handoff", language))
    if any(call["name"] == CALL_PERSON for call in last.tool_calls):
        return handoff, True
    if (
        last.tool_calls or not str(last.text).strip()
    ):  # still wants tools after all its steps, or has nothing to say
        return handoff, True

    async def page_of(ref: str) -> Page | None:
        async with turn.mind.resources.database.tenant_session(turn.tenant, durable=False) as session:
            found = (await knowledge.passages(session, [UUID(ref)])).get(UUID(ref))
            text = await knowledge.page_text(session, found.document_id, found.page) if found else None
        return (
            Page(found.document_id, found.document, found.page, text) if found and text is not None else None
        )

    results = [message for message in own if isinstance(message, ToolMessage)]
    checked = await check_citations(str(last.text), passages_in(results), page_of, turn.vault.restore)
    if checked.unsupported:
        return Checked(handoff.text, dropped=checked.dropped), True
    return checked, False
