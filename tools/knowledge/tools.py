"""What the model may ask of the documents."""

from storage.errors import ValidationFailed
from tools.knowledge import service
from tools.knowledge.schemas import PassageOut, SearchArgs, SearchOut
from tools.sdk.context import ToolContext
from tools.sdk.errors import ToolError


async def search(context: ToolContext, args: SearchArgs) -> SearchOut:
    """Search the documents of the business: prices, terms, opening hours, how things are done.

    Returns passages with an id such as K1. Answer only from them, and cite each with its id and a quote
    copied exactly.
    """
    try:
        found = await service.search(
            context.tenant, context.session, context.resources.embedder, context.resources.vectors, args.query
        )
    except ValidationFailed as error:
        raise ToolError(error.message) from error
    return SearchOut(
        passages=[
            PassageOut(
                id=f"K{context.labels + number}",
                document=passage.document,
                page=passage.page,
                text=passage.text,
                score=round(score, 4),
                ref=str(passage.chunk_id),
            )
            for number, (passage, score) in enumerate(found, start=1)
        ]
    )
