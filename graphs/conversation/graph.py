"""Step 4 of a message's path: the state machine of a turn.

supervisor_in → router → specialist ⇄ tools → supervisor_out
"""

from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from graphs.context import TurnContext
from graphs.conversation import nodes
from graphs.conversation.edges import after_specialist
from graphs.conversation.state import ConversationState

# Supervisor twice, router, and at most five thoughts with tools between them; LangGraph's own default is
# 10,000.
RECURSION_LIMIT = 25

ConversationGraph = CompiledStateGraph[ConversationState, TurnContext, ConversationState, ConversationState]


def make_graph(_config: Any = None) -> ConversationGraph:
    """The compiled graph, without a checkpointer: the runner adds the tenant's for each turn. langgraph.json
    names this function.
    """
    graph = StateGraph(ConversationState, context_schema=TurnContext)
    graph.add_node("supervisor_in", nodes.supervisor_in)
    graph.add_node("router", nodes.router)
    graph.add_node("specialist", nodes.specialist_node)
    graph.add_node("tools", nodes.tools)
    graph.add_node("supervisor_out", nodes.supervisor_out)
    graph.add_edge(START, "supervisor_in")
    graph.add_edge("supervisor_in", "router")
    graph.add_edge("router", "specialist")
    graph.add_conditional_edges("specialist", after_specialist)
    graph.add_edge("tools", "specialist")
    graph.add_edge("supervisor_out", END)
    return graph.compile()
