"""Which port each part of a stack listens on.

The ports of a data directory stay the same as long as they are free, so a part that was restarted,
and a stack that was started again, are found where they were.
"""

from __future__ import annotations

import random
import socket
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from dc_platform.errors import ConfigurationError

HOST = "127.0.0.1"
DEFAULT_PORTS = {
    "kafka": 9092,
    "kafka_controller": 9093,
    "gateway": 8080,
    "serving": 8081,
    "code_server": 4000,
    "dagster_webserver": 3000,
    "trino": 8082,
}
# Below the range from which Linux takes the ports of outgoing connections: a part that was
# restarted must not find its port taken by somebody's connection.
_FIRST, _LAST, _BLOCK = 20_000, 32_000, 10


def choose(
    *,
    needed: Collection[str],
    remembered: Mapping[str, int],
    auto: bool,
    usual: bool = False,
    movable: bool = True,
) -> dict[str, int]:
    """The ports of a stack that is about to start.

    Those in `needed` must be free; a taken one is an error, or is replaced when `auto`. At a first
    start `auto` takes ports that nobody else is likely to want, or the `usual` ones. Not `movable`:
    other parts of this stack run already and know its ports.
    """
    wanted = {**DEFAULT_PORTS, **remembered} if remembered or usual or not auto else {}
    taken = [name for name, port in wanted.items() if name in needed and not is_free(port)]
    if taken and not (auto and movable):
        raise ConfigurationError(_taken(taken[0], wanted[taken[0]], movable=movable))
    if wanted and not taken:
        return wanted
    fresh = _free_block()
    return {
        name: wanted[name] if name in wanted and name not in taken else fresh[name]
        for name in DEFAULT_PORTS
    }


def is_free(port: int) -> bool:
    """Whether nobody listens on the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _taken(name: str, port: int, *, movable: bool) -> str:
    problem = f"port {port} of {name} is taken by another program"
    if movable:
        return f"{problem}: end it, or take free ports with --ports auto"
    return f"{problem}, while other parts of this stack run: end it, or run dcp down first"


# Held until this process ends: two stacks that start at the same moment must not find the same
# ports free before either listens on them.
_reserved: list[BaseFileLock] = []


def _free_block() -> dict[str, int]:
    starts = list(range(_FIRST, _LAST, _BLOCK))
    random.shuffle(starts)
    for start in starts:
        ports = dict(zip(DEFAULT_PORTS, range(start, start + _BLOCK), strict=False))
        if _reserve(start) and all(is_free(port) for port in ports.values()):
            return ports
    raise ConfigurationError(f"no free ports between {_FIRST} and {_LAST}")


def _reserve(start: int) -> bool:
    lock = FileLock(Path(tempfile.gettempdir()) / f"dc-platform-ports-{start}.lock")
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return False
    _reserved.append(lock)
    return True
