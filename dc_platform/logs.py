"""How every process of the platform logs: one line per message."""

from __future__ import annotations

import logging
from pathlib import Path

# Libraries that report each connection.
_NOISY = ("kafka", "aiokafka", "alembic", "httpx", "uvicorn.error")


def configure_logging(level: str, file: Path | None = None) -> None:
    """Log to standard error, or append to `file`."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=level,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        handlers=[logging.FileHandler(file) if file is not None else logging.StreamHandler()],
        force=True,
    )
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
