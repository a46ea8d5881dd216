"""Being the supervisor: what `dcp up` does when it stays, and what `--detach` starts."""

from __future__ import annotations

import os
from collections.abc import Callable

from dc_platform.registry.database import Database, migrate
from dc_platform.stack.control import Options, chosen_ports
from dc_platform.stack.ending import surviving_parts
from dc_platform.stack.lock import hold
from dc_platform.stack.parts import (
    part_environment,
    prepare_dagster,
    stack_parts,
    stack_settings,
)
from dc_platform.stack.record import PartRecord
from dc_platform.stack.supervisor import Supervisor


def supervise(options: Options, show: Callable[[Supervisor], None]) -> None:
    """Be the supervisor, until a signal."""
    directory = options.directory
    with hold(directory):
        running = surviving_parts(directory.read(), directory.stack_id)
        supervisor = build(options, running, show)
        # What is relative to the caller's directory is known by now; it must not be held in use.
        os.chdir(directory.path)
        supervisor.run(running)


def build(
    options: Options, running: dict[str, PartRecord], show: Callable[[Supervisor], None]
) -> Supervisor:
    """A supervisor with the parts of a stack, everything prepared that they need."""
    directory = options.directory
    settings = stack_settings(directory)
    with_trino = options.with_trino or "trino" in running
    chosen = chosen_ports(options, running)
    directory.write_ports(chosen)
    prepare_dagster(directory, chosen)
    migrate(settings.registry)
    parts = stack_parts(directory, settings, chosen, with_trino=with_trino)
    environment = part_environment(directory, settings, chosen)
    where = {part.name: part.where for part in parts}
    return Supervisor(
        directory,
        parts,
        environment,
        addresses={
            "kafka": where["kafka"],
            "grpc": None,
            "mqtt": None,
            "topic": settings.topic,
            "gateway": where["gateway"],
            "query": where["serving"],
            "dagster": where["dagster_webserver"],
            "trino": where.get("trino"),
            "lake": settings.lake,
        },
        registry=Database(settings.registry),
        show=show,
    )
