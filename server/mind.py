"""Puts together what a worker thinks with: prompts, models, tools, the supervisor."""

from agents.catalog import Catalog
from agents.models import ModelGateway
from agents.offline import offline_models
from agents.offline_examples import ExampleLibrary
from agents.settings import ModelSettings
from agents.supervisor.pii import Masker
from graphs.context import Mind
from prompts.loader import PromptLibrary
from server.deps import Parts
from server.settings import PROMPTS


def build_mind(parts: Parts) -> Mind:
    """Load and check everything that is edited as files.

    Raises:
        PromptError: a file is wrong; the text says file, line and reason.
    """
    catalog = Catalog(PromptLibrary(PROMPTS), frozenset(parts.registry.tools))
    library = ExampleLibrary.load(PROMPTS)
    return Mind(
        gateway=ModelGateway(ModelSettings(), offline_models(library, parts.resources.embedder)),
        catalog=catalog,
        registry=parts.registry,
        masker=Masker(),
        library=library,
        resources=parts.resources,
    )
