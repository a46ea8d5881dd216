"""A stack of small stand-in parts, to see what a supervisor does without waiting for real ones.

`supervise DIR PORT PORT PORT` is a supervisor: `store`, which nothing can do without, `door`, which
has a worker as Dagster's code server has run workers, and `spare`. `part …` is one such part. Files
in DIR tell what happened: `ended` has a line for each orderly end; when `NAME.crash` is there, the
part ends at once; with `NAME.stubborn` it takes no notice of SIGTERM.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("store", "door", "spare")


def main() -> None:
    """Be what the first argument says."""
    {"supervise": supervise, "part": part, "worker": worker}[sys.argv[1]](*sys.argv[2:])


def supervise(directory: str, *ports: str) -> None:
    """Supervise the three parts, until a signal."""
    from dc_platform.registry.database import Database, migrate
    from dc_platform.stack.ending import surviving_parts
    from dc_platform.stack.lock import hold
    from dc_platform.stack.parts import Part
    from dc_platform.stack.probes import port_answers
    from dc_platform.stack.processes import STACK_VARIABLE
    from dc_platform.stack.record import StackDirectory
    from dc_platform.stack.supervisor import Supervisor

    stack = StackDirectory(Path(directory))

    def make(index: int) -> Part:
        name, port = NAMES[index], int(ports[index])
        command = [sys.executable, "-P", __file__, "part", name, str(port), directory]
        return Part(
            name,
            lambda: command,
            lambda: port_answers("127.0.0.1", port),
            where=f"127.0.0.1:{port}",
            stage=index,
            needs=("store",) if index else (),
            grace=30.0,
        )

    with hold(stack):
        url = f"sqlite:///{stack.path / 'registry.db'}"
        migrate(url)
        supervisor = Supervisor(
            stack,
            [make(index) for index in range(len(ports))],
            {**os.environ, STACK_VARIABLE: stack.stack_id},
            addresses={"topic": "t"},
            registry=Database(url),
        )
        supervisor.run(surviving_parts(stack.read(), stack.stack_id))


def part(name: str, port: str, directory: str) -> None:
    """Listen until SIGTERM."""
    if Path(directory, f"{name}.crash").exists():
        sys.exit(3)
    stubborn = Path(directory, f"{name}.stubborn").exists()
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else end_of(name, directory))
    with socket.create_server(("127.0.0.1", int(port))) as server:
        if name == "door":
            subprocess.Popen([sys.executable, "-P", __file__, "worker", directory])
        while True:
            connection, _ = server.accept()
            connection.close()


def worker(directory: str) -> None:
    """A run worker: at SIGTERM it finishes its commit, which takes a second."""
    signal.signal(signal.SIGTERM, end_of("worker", directory, seconds=1.0))
    Path(directory, "worker.pid").write_text(str(os.getpid()))
    while True:
        signal.pause()


def end_of(name: str, directory: str, seconds: float = 0.0) -> object:
    """A handler that notes the orderly end."""

    def handler(_number: int, _frame: object) -> None:
        time.sleep(seconds)
        with Path(directory, "ended").open("a") as file:
            file.write(f"{name}\n")
        os._exit(0)

    return handler


if __name__ == "__main__":
    main()
