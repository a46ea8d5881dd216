"""What `dcp up --detach`, `dcp down` and `dcp status` do: they talk to a supervisor, or act without.

Imports little: these commands shall answer at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dc_platform.errors import FatalError
from dc_platform.stack import ports
from dc_platform.stack.ending import Ending, surviving_parts
from dc_platform.stack.lock import hold, is_held
from dc_platform.stack.processes import Identity, Process, lives, send, spawn
from dc_platform.stack.record import PartRecord, StackDirectory, StackRecord

READY_SECONDS = 180.0
_LOG_LINES = 15
# Early deaths of one part after which waiting on is of no use.
_HOPELESS = 4
# What the supervisor itself needs to end everything, landing's last commit included.
_DOWN_SECONDS = 150.0
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Options:
    """What `dcp up` was asked for. `usual_ports`: automatic ones are the usual ones where free."""

    data_dir: Path
    auto_ports: bool = False
    usual_ports: bool = False
    with_trino: bool = False

    @property
    def directory(self) -> StackDirectory:
        """The stack's files."""
        return StackDirectory(self.data_dir)


def fetch(*, with_trino: bool) -> None:
    """Download what is missing of the programs."""
    from dc_platform.stack import artifacts, trino_server

    artifacts.fetch("Apache Kafka", artifacts.kafka_pins())
    if with_trino:
        trino_server.installed()


def require_ports(options: Options) -> None:
    """Refuse a stack whose ports are taken, before anything is downloaded or started."""
    directory = options.directory
    if not options.auto_ports and not is_held(directory):
        chosen_ports(options, surviving_parts(directory.read(), directory.stack_id))


def chosen_ports(options: Options, running: Mapping[str, PartRecord]) -> dict[str, int]:
    """The ports that the parts of a stack are to have, those of `running` parts as they are."""
    listening = {name for name, part in running.items() if part.pid}
    if "kafka" in listening:
        listening.add("kafka_controller")
    if not options.with_trino and "trino" not in running:
        listening.add("trino")
    return ports.choose(
        needed=ports.DEFAULT_PORTS.keys() - listening,
        remembered=options.directory.read_ports(),
        auto=options.auto_ports,
        usual=options.usual_ports,
        movable=not running,
    )


def start_detached(options: Options, say: Callable[[str], None]) -> StackRecord:
    """Start a supervisor in the background and wait until all parts are ready."""
    directory = options.directory
    child: Process | None = None
    if is_held(directory):
        say("the stack runs already")
        record = directory.read()
        if options.with_trino and record and not record.addresses.get("trino"):
            say("it runs without Trino: dcp down, then dcp up --with trino")
    else:
        command = [sys.executable, "-P", "-m", "dc_platform.stack"]
        command += ["--data-dir", str(directory.path)]
        command += ["--auto-ports"] * options.auto_ports + ["--with-trino"] * options.with_trino
        child = spawn(
            command,
            log=directory.log("supervisor"),
            environment=os.environ,
            # Settings with relative paths are relative to the caller's directory.
            directory=Path.cwd(),
        )
    try:
        return _wait_ready(directory, child, say)
    except BaseException:
        # Whatever a supervisor that ran before has started is not ours to end.
        if child is not None:
            stop(directory, say)
        raise


def stop(directory: StackDirectory, say: Callable[[str], None]) -> bool:
    """End the stack, with or without its supervisor; whether there was anything to end."""
    had_supervisor = is_held(directory)
    if had_supervisor:
        _stop_supervisor(directory, say)
    with hold(directory):
        record = directory.read()
        parts = surviving_parts(record, directory.stack_id)
        for name in Ending(directory.stack_id, say=say).end(dict(parts)):
            say(f"{name} did not end in time and was killed")
        if record is not None:
            record.supervisor, record.landing, record.ready = None, {}, False
            for part in record.parts.values():
                part.pid, part.state, part.groups = None, "down", []
            directory.write(record)
    return had_supervisor or bool(parts)


def running_record(directory: StackDirectory) -> StackRecord | None:
    """What runs now, checked process by process; None when nothing does."""
    record = directory.read()
    if record is None:
        return None
    if record.supervisor and not lives(record.supervisor):
        record.supervisor = None
    alive = surviving_parts(record, directory.stack_id)
    for name, part in record.parts.items():
        if name not in alive or alive[name].pid is None:
            part.pid, part.state = None, "down"
    record.ready = record.ready and all(part.pid for part in record.parts.values())
    return record if record.supervisor or alive else None


def _wait_ready(
    directory: StackDirectory, child: Process | None, say: Callable[[str], None]
) -> StackRecord:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        record = directory.read()
        current = record is not None and record.supervisor and lives(record.supervisor)
        if record is not None and current:
            if record.ready:
                return record
            hopeless = [n for n, part in record.parts.items() if part.early_deaths >= _HOPELESS]
            if hopeless or time.monotonic() > deadline:
                late = [name for name, part in record.parts.items() if part.state != "ready"]
                raise _not_ready(directory, hopeless or late, say)
        else:
            gone = child is not None and not child.lives() and not is_held(directory)
            if gone or time.monotonic() > deadline:
                raise _not_ready(directory, ["supervisor"], say)
        time.sleep(_LOOK_SECONDS)


def _not_ready(
    directory: StackDirectory, names: list[str], say: Callable[[str], None]
) -> FatalError:
    log = directory.log(names[0])
    if log.exists():
        say(f"the end of {log}:")
        for line in log.read_text(errors="replace").splitlines()[-_LOG_LINES:]:
            say(f"  {line}")
    return FatalError(f"{', '.join(names)} did not become ready; see {directory.logs}")


def _stop_supervisor(directory: StackDirectory, say: Callable[[str], None]) -> None:
    """Ask the supervisor to end everything and wait for its own end; a stuck one is killed."""
    deadline = time.monotonic() + _DOWN_SECONDS
    asked: Identity | None = None
    while is_held(directory) or (asked and lives(asked)):
        record = directory.read()
        process = record.supervisor if record else None
        if asked and time.monotonic() > deadline:
            say("the supervisor does not end: killing it")
            send(asked, signal.SIGKILL)
        elif process and process != asked and lives(process):
            say(f"asking the supervisor (pid {process.pid}) to end the stack")
            send(process, signal.SIGTERM)
            asked = process
        time.sleep(_LOOK_SECONDS)
