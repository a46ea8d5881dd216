"""`python -m dc_platform.stack`: the supervisor that `dcp up --detach` starts."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from dc_platform.errors import PlatformError
from dc_platform.logs import configure_logging
from dc_platform.settings import settings
from dc_platform.stack.control import Options
from dc_platform.stack.launch import supervise


def main() -> int:
    """Supervise until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--auto-ports", action="store_true")
    parser.add_argument("--with-trino", action="store_true")
    arguments = parser.parse_args()
    configure_logging(settings().log_level)
    options = Options(
        arguments.data_dir, auto_ports=arguments.auto_ports, with_trino=arguments.with_trino
    )
    try:
        supervise(options, lambda supervisor: None)
    except PlatformError as error:
        logging.getLogger("dc_platform.stack").error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
