"""Runs one turn: builds its surroundings, lets the graph work, turns its state into a reply."""

from collections.abc import Awaitable, Callable, Sequence

from agents.language import LanguageGuesser
from agents.toolbox import Toolbox, VaultPrivacy
from graphs.checkpoints import Pool, TenantSaver
from graphs.context import Mind, TurnContext
from graphs.conversation.graph import RECURSION_LIMIT, make_graph
from storage.crypto.cipher import LocalSealer
from storage.journal import TurnJournal
from storage.placeholders import Vault
from storage.repositories.claims import Claim
from storage.repositories.directory import TenantInfo
from storage.repositories.inbox import Reply
from storage.tenancy import TenantContext
from tools.sdk.runner import Conversation, ToolRunner

# What an agent may do in a customer's conversation. The tenant's own policies come with the roles (another
# issue).
AGENT_SCOPES = frozenset({"crm:read", "crm:write", "knowledge:read"})


class ConversationRunner:
    """The graph, and what all turns share.

    Args:
        pool: opened connections for checkpoints.
    """

    def __init__(self, mind: Mind, pool: Pool) -> None:
        self.mind = mind
        self._pool = pool
        self._graph = make_graph()
        self._guessers: dict[tuple[str, ...], LanguageGuesser] = {}

    async def run(
        self,
        tenant: TenantContext,
        info: TenantInfo,
        claim: Claim,
        journal: TurnJournal,
        vault: Vault,
        sealer: LocalSealer,
        draft: Callable[[str], Awaitable[None]],
    ) -> Reply:
        """Work a turn to its end, from the journal as far as that goes.

        Args:
            sealer: the thread's key, for its checkpoint.

        Raises:
            LeaseLost: somebody else works this thread now.
            Exception: the turn failed; what it had journalled stays.
        """
        conversation = Conversation(
            tenant=tenant,
            thread_id=claim.thread_id,
            turn_id=claim.turn_id,
            now=journal.now(),
            language=claim.language or info.languages[0],
        )
        tool_runner = ToolRunner(
            self.mind.registry,
            journal,
            self.mind.resources,
            VaultPrivacy(vault, self.mind.masker),
            conversation,
        )
        context = TurnContext(
            mind=self.mind,
            snapshot=self.mind.catalog.snapshot(),
            tenant=tenant,
            info=info,
            claim=claim,
            journal=journal,
            vault=vault,
            guesser=self._guesser(info.languages),
            conversation=conversation,
            toolbox=Toolbox(tool_runner),
            draft=draft,
        )
        graph = self._graph.copy(
            {"checkpointer": TenantSaver(self._pool, tenant.tenant_id, claim.thread_id, sealer, claim.fence)}
        )
        state = await graph.ainvoke(
            {"turn_id": str(claim.turn_id)},
            {
                "configurable": {"thread_id": tenant.checkpoint_thread(claim.thread_id)},
                "recursion_limit": RECURSION_LIMIT,
            },
            context=context,
            durability="exit",
        )
        spent = journal.recorded
        return Reply(
            text=vault.restore(state["reply"]["text"]),
            agent=state["agent"],
            language=state["language"],
            reduced=state["reduced"],
            needs_human=state["reply"]["needs_human"],
            citations=state["reply"]["citations"],
            model=next((item.model for item in reversed(spent) if item.model), None),
            tokens_in=sum(item.tokens_in for item in spent),
            tokens_out=sum(item.tokens_out for item in spent),
        )

    def _guesser(self, languages: Sequence[str]) -> LanguageGuesser:
        key = tuple(languages)
        if key not in self._guessers:
            self._guessers[key] = LanguageGuesser(key)
        return self._guessers[key]
