"""Logs as JSON lines. Ids, codes and durations; never what a customer wrote (server/masking.py is the last line of defence)."""

import logging
import sys
from typing import TextIO

import structlog

from server.masking import mask_event


def configure_logging(level: str, stream: TextIO = sys.stdout) -> None:
    """Route structlog and the standard library's loggers into one stream of JSON lines.

    Args:
        stream: standard output for services; commands, whose output is their result, log to standard error.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_event,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # arq logs every job's arguments, httpx every address; warnings are enough of both.
    for chatty in (
        "arq",
        "httpx",
        "httpx2",
        "httpcore",
        "chromadb",
        "openai",
        "presidio-analyzer",
        "alembic",
        "uvicorn.access",
    ):
        logging.getLogger(chatty).setLevel(logging.WARNING)
