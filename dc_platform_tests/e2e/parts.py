"""Single parts as processes of a test, without a supervisor: their clock can be moved.

`later` moves the clock of a process by libfaketime: the gateway of tomorrow is a real process that
believes that it is tomorrow. Kafka keeps the true time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import libfaketime

from dc_platform.stack import ports
from dc_platform.stack.kafka import LocalKafka


@contextmanager
def kafka(directory: Path) -> Iterator[LocalKafka]:
    """A broker for the length of the block."""
    chosen = ports.choose(needed=("kafka", "kafka_controller"), remembered={}, auto=True)
    with LocalKafka(directory, chosen["kafka"], chosen["kafka_controller"]) as broker:
        yield broker


def clock_later(hours: float) -> dict[str, str]:
    """The environment of a process whose clock is ahead."""
    if not hours:
        return {}
    _, additions = libfaketime.get_reload_information()
    # librdkafka's threads wait by the true clock for a time of the moved one: for that many hours.
    client = {"DCP_KAFKA_CLIENT": "kafka-python"}
    return {**additions, **client, "FAKETIME": f"+{int(hours * 3600)}s"}


@contextmanager
def http_part(
    module: str, environment: Mapping[str, str], *, log: Path, ready: str = "/healthz"
) -> Iterator[str]:
    """`python -m module` with a free port, ready; gives its base URL. Killed at the end."""
    port = ports.choose(needed=("gateway",), remembered={}, auto=True)["gateway"]
    url = f"http://127.0.0.1:{port}"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--port", str(port)],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        _wait(url + ready, process, log)
        yield url
    finally:
        process.kill()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 90
    while True:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
        try:
            answer = httpx.get(url, timeout=5)
            if answer.status_code == 200 and answer.json().get("status", "healthy") == "healthy":
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)


def land(environment: Mapping[str, str]) -> None:
    """`dcp land --until-caught-up` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "dc_platform.cli.main", "land", "--until-caught-up"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
