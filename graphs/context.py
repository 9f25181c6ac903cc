"""What a turn knows that is not its state: given by code at each run, never stored in a checkpoint, never
seen by a model.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agents.catalog import Catalog, Snapshot
from agents.language import LanguageGuesser
from agents.models import ModelGateway
from agents.offline_examples import ExampleLibrary
from agents.supervisor.pii import Masker
from agents.toolbox import Toolbox
from storage.journal import TurnJournal
from storage.placeholders import Vault
from storage.repositories.claims import Claim
from storage.repositories.directory import TenantInfo
from storage.tenancy import TenantContext
from tools.sdk.context import Resources
from tools.sdk.registry import Registry
from tools.sdk.runner import Conversation


@dataclass(frozen=True)
class Mind:
    """What the process thinks with; built once."""

    gateway: ModelGateway
    catalog: Catalog
    registry: Registry
    masker: Masker
    library: ExampleLibrary
    resources: Resources


@dataclass(frozen=True)
class TurnContext:
    """One turn's surroundings.

    Attributes:
        snapshot: the specialists as the turn found them; edits take effect at the next turn.
        draft: shows the customer the answer so far; best effort.
    """

    mind: Mind
    snapshot: Snapshot
    tenant: TenantContext
    info: TenantInfo
    claim: Claim
    journal: TurnJournal
    vault: Vault
    guesser: LanguageGuesser
    conversation: Conversation
    toolbox: Toolbox
    draft: Callable[[str], Awaitable[None]]
