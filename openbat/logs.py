"""Structured logs: one JSON object a line, on standard error. Quiet per request."""

import logging
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger

from gateway.request_id import CURRENT


def configure(level: str, **context: object) -> None:
    """Set logging up for this process.

    Args:
        level: the lowest level of ours that is written; libraries are heard from `warning` on.
        context: what every line carries.

    """
    ours = logging.getLevelNamesMapping()[level.upper()]
    # aiokafka and Faust build debug records on every message unless told that early.
    logging.disable(logging.DEBUG if ours > logging.DEBUG else logging.NOTSET)
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    # It logs what it raises with a traceback that quotes the row: content belongs in no log.
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=max(ours, logging.WARNING), handlers=[handler], force=True)
    structlog.configure(
        processors=[*processors, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(ours),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(**context)


def _add_request_id(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    request_id = CURRENT.get()
    if request_id is not None:
        line["request_id"] = request_id.decode()
    return line
