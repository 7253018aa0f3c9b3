"""Log lines: text for people, JSON for collectors. Called once, by `main`."""

import json
import logging
import sys
from datetime import UTC, datetime

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(*, level: str, is_json: bool) -> None:
    """Send all log lines of ``level`` and above to standard error."""
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JsonFormatter() if is_json else text)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # The framework tells of each event that it hands on; we tell what we do about it.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kubernetes_asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
