"""How an HTTP part of the platform is run: uvicorn with uvloop, one process, orderly end."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from dc_platform.logs import configure_logging
from dc_platform.settings import Settings, settings


def serve(create_app: Callable[[Settings], FastAPI]) -> None:
    """Run the application until SIGTERM; `--host` and `--port` come from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    configured = settings()
    configure_logging(configured.log_level)
    uvicorn.run(
        create_app(configured),
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=15,
        # Long-lived senders: an idle connection is cheap, a new one costs a sender a round trip.
        timeout_keep_alive=75,
        backlog=2048,
    )
