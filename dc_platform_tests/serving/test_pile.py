"""The tail's bounds: what is spilled, by whom, and what lands meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dc_platform.serving.chunks import Chunk
from dc_platform.serving.pile import Pile
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.serving.test_chunks import Row, chunk_of, keys_of, rows_of, view_of
from dc_platform_tests.stack.harness import wait_for

# A chunk of so many rows is a tenth of the memory.
_ROWS = 400


def rows(number: int) -> list[Row]:
    """Those of the chunk of this number."""
    return [("a", some_uuid(n), 0, n) for n in range(number * _ROWS, (number + 1) * _ROWS)]


CHUNKS = [chunk_of(rows(number)) for number in range(16)]


class Disk:
    """What chunks are spilled to; holds its writer up until `open`."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.asked = 0
        self.error: OSError | None = None

    def spill(self, write: Callable[[Chunk, Path, str], Chunk]) -> Callable[..., Chunk]:
        """`Chunk.spill` to this disk."""

        def held(chunk: Chunk, directory: Path, name: str) -> Chunk:
            self.asked += 1
            assert self.open.wait(60)
            if self.error is not None:
                raise self.error
            return write(chunk, directory, name)

        return held


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(Chunk, "spill", made.spill(Chunk.spill))
    return made


@pytest.fixture
def pile(tmp_path: Path, disk: Disk) -> Iterator[Pile]:
    made = Pile(tmp_path, memory_mb=1, disk_mb=100, identity_memory_mb=10)
    made._memory = 10 * CHUNKS[0].bytes
    yield made
    disk.open.set()
    made.close()


def in_memory(pile: Pile) -> int:
    return sum(chunk.rows for chunk in pile.chunks if chunk.table is not None)


def seen(pile: Pile, border: int = 0) -> list[Row]:
    return rows_of(view_of(pile.chunks, {0: border}))


def fill(pile: Pile, chunks: range) -> None:
    for number in chunks:
        pile.add(CHUNKS[number])


def test_the_tail_goes_on_while_it_is_spilled(pile: Pile, disk: Disk) -> None:
    fill(pile, range(11))
    wait_for(lambda: disk.asked == 1)
    pile.add(CHUNKS[11])
    assert in_memory(pile) == 12 * _ROWS
    assert pile.contains(keys_of(rows(3))).all()
    assert not pile.full
    disk.open.set()
    wait_for(pile.settle)
    assert in_memory(pile) <= _ROWS
    assert seen(pile) == sorted(row for number in range(12) for row in rows(number))


def test_what_lands_while_it_is_spilled_is_gone(pile: Pile, disk: Disk, tmp_path: Path) -> None:
    fill(pile, range(11))
    wait_for(lambda: disk.asked == 1)
    pile.cut({0: _ROWS // 2})
    disk.open.set()
    # Memory is as short as it was: what is left is spilled.
    wait_for(pile.settle)
    assert disk.asked == 2
    assert len(list(tmp_path.iterdir())) == 1
    assert seen(pile) == sorted(row for n in range(11) for row in rows(n) if row[3] >= _ROWS // 2)


def test_a_tail_that_is_far_past_its_memory_waits_for_its_file(pile: Pile, disk: Disk) -> None:
    fill(pile, range(11))
    wait_for(lambda: disk.asked == 1)
    filling = threading.Thread(target=fill, args=(pile, range(11, 16)))
    filling.start()
    wait_for(lambda: in_memory(pile) > 12.5 * _ROWS)
    filling.join(0.2)
    assert filling.is_alive()
    disk.open.set()
    filling.join()
    assert in_memory(pile) <= 10 * _ROWS
    assert seen(pile) == sorted(row for number in range(16) for row in rows(number))


def test_a_disk_that_refuses_makes_the_tail_full_until_something_lands(
    pile: Pile, disk: Disk
) -> None:
    disk.error = OSError("no space left")
    disk.open.set()
    fill(pile, range(11))
    wait_for(lambda: pile.settle() or pile.full)
    assert in_memory(pile) == 11 * _ROWS
    assert not pile.settle()
    assert disk.asked == 1
    pile.cut({0: 2 * _ROWS})
    assert not pile.full
    assert seen(pile, 2 * _ROWS) == sorted(row for n in range(2, 11) for row in rows(n))
