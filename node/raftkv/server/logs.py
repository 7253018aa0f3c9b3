"""How a node's log lines look: text for people, JSON for machines, always on standard error.

Modules log with the standard library; what every line carries beside its message (which node,
in which term and role) is added here, so that lines of several nodes can be read together.
"""

import logging
import sys
from typing import Final

import structlog
from structlog.typing import EventDict, WrappedLogger

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")


class LogContext:
    """What every line carries; kept current by the process as the node's role changes."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.term = 0
        self.role = "starting"

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Add the context: a structlog processor."""
        event["node"] = self.node
        event["term"] = self.term
        event["role"] = self.role
        return event


def configure_logging(context: LogContext, log_format: str, level: str) -> None:
    """Send all log lines of this process to standard error, in one of `FORMATS`."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    renderers: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta
    ]
    if log_format == "json":
        renderers += [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    else:
        renderers.append(
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                # Not the default: it shows local variables, hence clients' values.
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=renderers,
            foreign_pre_chain=[structlog.stdlib.add_log_level, stamp, context],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
