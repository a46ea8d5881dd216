"""Which Java the parts run on."""

from __future__ import annotations

import subprocess

import pytest

from dc_platform.stack.java import LEAST_VERSION, find_java, version_of


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "25.0.2" 2026-01-20\nOpenJDK Runtime Environment', 25),
        ('openjdk version "24" 2025-03-18', 24),
        ('java version "1.8.0_412"', 1),
        ("java: command not found", None),
        ("", None),
    ],
)
def test_version(said: str, version: int | None) -> None:
    assert version_of(said) == version


def test_the_java_that_is_found_is_new_enough() -> None:
    done = subprocess.run(
        [find_java().path, "-version"], capture_output=True, text=True, check=True
    )
    assert (version_of(done.stderr) or 0) >= LEAST_VERSION
