"""Views in another process: the same rows and facts, and only what is new goes over."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from dc_platform.serving.mirror import Change, Packer, Receiver, Sender
from dc_platform.serving.view import View
from dc_platform_tests.helpers.records import block
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.serving.conftest import lines


def over(sender: Sender, receiver: Receiver, seen: View) -> Change:
    """What goes over; holds that the other side has the same view."""
    assert not sender.has(seen)
    change = sender.change(seen)
    assert not sender.has(seen)
    sender.sent(seen, change)
    assert sender.has(seen)
    found = receiver.take(pickle.loads(pickle.dumps(change)))
    assert found is receiver.view
    assert found.silver.version == seen.silver.version
    assert found.silver.paths == seen.silver.paths
    assert found.silver.actions == seen.silver.actions
    assert (found.border, found.complete, found.up_to_ms) == (
        seen.border,
        seen.complete,
        seen.up_to_ms,
    )
    assert [chunk.facts for chunk in found.chunks] == [chunk.facts for chunk in seen.chunks]
    assert [chunk.spans for chunk in found.chunks] == [chunk.spans for chunk in seen.chunks]
    assert found.tail.equals(seen.tail)
    assert found.tail_rows == seen.tail_rows
    return change


def test_only_what_is_new_goes_over(tmp_path: Path) -> None:
    served = Served(tmp_path)
    sender, receiver = Sender(Packer()), Receiver()
    first = view(served.lake, [block(lines(0, 3))], [[block(lines(3, 5), 1)]])
    change = over(sender, receiver, first)
    assert change.silver is not None
    assert len(change.new) == 1
    kept = receiver.view
    assert kept is not None

    more = view(served.lake, [], [[block(lines(5, 9), 2)]])
    both = replace(first, chunks=(*first.chunks, *more.chunks), complete=False, up_to_ms=7)
    change = over(sender, receiver, both)
    assert change.silver is None
    assert [len(change.chunks), len(change.new)] == [2, 1]
    assert receiver.view is not None
    # So what is in memory of it stays there.
    assert receiver.view.chunks[0] is kept.chunks[0]
    assert receiver.view.silver is kept.silver

    # One landed; another process of landing was quicker than its tail.
    landed = view(served.lake, [block(lines(3, 5), 1)])
    change = over(sender, receiver, replace(both, silver=landed.silver, chunks=more.chunks))
    assert change.silver is not None
    assert not change.new
    # What went is not there any more, and goes over again.
    change = over(sender, receiver, replace(both, silver=landed.silver))
    assert len(change.new) == 1


def test_of_a_cut_chunk_only_its_rows_go_over(tmp_path: Path) -> None:
    served = Served(tmp_path)
    seen = view(served.lake, [], [[block(lines(0, 2000), 0), block(lines(2000, 2002), 1)]])
    [chunk] = seen.chunks
    cut = chunk.above({0: 1, 1: 1})
    assert cut is not None
    assert cut.rows == 2
    sender, receiver = Sender(Packer()), Receiver()
    change = over(sender, receiver, replace(seen, chunks=(cut,)))
    assert len(change.new[0].rows) < 20_000
    assert pa.ipc.open_stream(change.new[0].rows).read_all().num_rows == 2
