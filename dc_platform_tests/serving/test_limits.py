"""The memory of a serving process: what is memory counts, not what is mapped."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dc_platform.serving.limits import memory_limit_mb
from dc_platform.settings import Settings

CHILD = """
import mmap
from dc_platform.serving.limits import _usage, set_limit

MIB = 2**20
limit = _usage()[1] + 256 * MIB
set_limit(limit)
# Mapped and never touched: it is no memory, so there is room for as much again.
held = []
for _ in range(8):
    held.append(mmap.mmap(-1, 128 * MIB, flags=mmap.MAP_PRIVATE))
    set_limit(limit)
try:
    bytes(512 * MIB)
except MemoryError:
    print("refused")
filled = bytearray(b"x") * (200 * MIB)
set_limit(limit)
try:
    bytearray(b"x") * (128 * MIB)
except MemoryError:
    print("refused")
del filled
set_limit(limit)
bytearray(b"x") * (128 * MIB)
print("served")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_is_limited_and_what_is_only_mapped_is_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == ["refused", "refused", "served"], done.stderr


def test_without_a_setting_it_is_what_the_parts_may_have() -> None:
    assert memory_limit_mb(Settings(serving_memory_mb=700)) == 700
    more = Settings(query_memory_mb=2048)
    assert memory_limit_mb(more) - memory_limit_mb(Settings(query_memory_mb=1024)) == 2048
