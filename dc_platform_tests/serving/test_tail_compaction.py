"""Compaction under a running tail: no count moves, and older views go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.table import LakeTable
from dc_platform.landing.commits import Committer
from dc_platform.landing.identities import IdentityIndex
from dc_platform_tests.helpers.compaction import compact_all
from dc_platform_tests.helpers.tail import Tailed, counts_since_first, polled

pytestmark = pytest.mark.kafka


def test_merged_files_hold_no_new_events(
    tailed: Callable[..., Tailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = tailed()
    tail.start()
    for number in range(4):
        tail.write(number)
        tail.wait_count(number + 1)
        tail.land()
    # One event waits in the tail, beside a duplicate of one that landed.
    tail.write(2, 9)
    tail.wait_count(5)
    older = tail.tail.view
    read: list[str] = []
    original = IdentityIndex.read

    def reading(index: IdentityIndex, paths: list[str], *scopes: Any) -> Any:
        read.extend(paths)
        return original(index, paths, *scopes)

    monkeypatch.setattr(IdentityIndex, "read", reading)
    with polled(tail) as seen:
        run = Committer(tail.lake, tail.info, [0, 1], identity_memory_mb=64, owner="test")
        assert compact_all(tail.lake, run, now=time.time() + 2 * 3600) == 2
        tail.follow(LakeTable(tail.lake, SILVER_EVENTS).version)
        assert tail.seen()[:2] == (5, 5)
        assert tail.seen(view=older)[:2] == (5, 5)
    assert counts_since_first(seen) == {5}
    assert read == []
    monkeypatch.undo()
    tail.write(3, 10)
    tail.wait_count(6)
    tail.land()
    assert tail.seen()[:2] == (6, 6)
