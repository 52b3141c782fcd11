"""Logs: one JSON line for each event on standard output, with allowed fields only. Knows no secret, and shows none."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_ALLOWED = frozenset(
    (
        "address",
        "algorithm",
        "anchors",
        "attempt",
        "authority",
        "bytes",
        "client_id",
        "code",
        "count",
        "credential_id",
        "detail",
        "event",
        "exception",
        "failures",
        "file",
        "free",
        "in_use",
        "instance",
        "key_algorithm",
        "key_id",
        "level",
        "limit",
        "logger",
        "message_id",
        "method",
        "module",
        "name",
        "operation",
        "order_id",
        "outcome",
        "path",
        "pid",
        "port",
        "queue",
        "queues",
        "reason",
        "room",
        "seconds",
        "serial",
        "signal",
        "state",
        "status",
        "task",
        "tenant_id",
        "timestamp",
        "took_ms",
        "type",
        "url",
        "user_id",
        "version",
        "why",
        "worker",
        "workers",
    )
)


def configure(level: str, *, room: str, instance: str) -> None:
    """Set up structlog and hand what libraries log through it."""
    processors: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Never the local variables of a traceback: a PIN was among them.
        structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False, max_frames=20)
        ),
        _only_allowed,
        structlog.processors.JSONRenderer(default=str),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(room=room, instance=instance)
    logging.basicConfig(handlers=[_ThroughStructlog()], level=logging.WARNING, force=True)


def _only_allowed(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop every field that is not on the list: a new field has to be thought about before it is seen."""
    dropped = [name for name in event if name not in _ALLOWED]
    for name in dropped:
        del event[name]
    return event


class _ThroughStructlog(logging.Handler):
    """What libraries say, without their arguments: those may hold a message."""

    def emit(self, record: logging.LogRecord) -> None:
        exception = type(record.exc_info[1]).__name__ if record.exc_info and record.exc_info[1] else None
        structlog.get_logger().log(
            record.levelno, "library", logger=record.name, detail=str(record.msg)[:200], why=exception
        )
