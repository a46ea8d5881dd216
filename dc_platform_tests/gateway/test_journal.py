"""The journal keeps each line until it is shipped, and never stands in the way of an event."""

from __future__ import annotations

import fcntl
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dc_platform.gateway.journal import Journal, Segment


def line(number: int) -> bytes:
    return b'{"block":"g/b/%06d"}\n' % number


def content(segments: list[Segment], size: int = 2**20) -> bytes:
    return b"".join(piece for segment in segments for piece in segment.pieces(size))


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*"))


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may become larger than `room` bytes: what exceeds it is a short write, then an error,
    as on a disk that is full.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "gateway-1", "boot")
    for number in range(3):
        journal.write(line(number))
        (path,) = files(tmp_path / "new" / "gateway-1")
        assert path.read_bytes() == b"".join(map(line, range(number + 1)))


def test_what_was_taken_comes_again_until_it_is_shipped(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "boot")
    assert journal.take() == []
    journal.write(line(0))
    (first,) = journal.take()
    journal.write(line(1))
    journal.not_shipped(first)
    assert content(journal.take()) == line(0)
    journal.shipped(first)
    (second,) = journal.take()
    assert content([second]) == line(1)
    journal.shipped(second)
    assert journal.take() == []
    assert files(tmp_path) == []


def test_pieces_hold_whole_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "boot")
    lines = [line(number) for number in range(100)]
    for one in lines:
        journal.write(one)
    (segment,) = journal.take()
    pieces = list(segment.pieces(50))
    assert len(pieces) > 10
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert b"".join(pieces) == b"".join(lines)


def test_the_next_start_finds_what_was_left_once(tmp_path: Path) -> None:
    dead = Journal(tmp_path, "first")
    dead.write(line(0))
    dead.take()
    dead.write(line(1))
    dead.close()
    after = Journal(tmp_path, "second")
    after.write(line(2))
    left = after.leftovers()
    assert content(left) == line(0) + line(1)
    for segment in left:
        after.shipped(segment)
    assert after.leftovers() == []
    assert content(after.take()) == line(2)


def test_a_living_neighbours_segment_is_left_alone(tmp_path: Path) -> None:
    living = Journal(tmp_path, "living")
    living.write(line(0))
    assert Journal(tmp_path, "other").leftovers() == []
    living.close()
    assert content(Journal(tmp_path, "other").leftovers()) == line(0)


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "acks-dead-000001.ndjson").write_bytes(line(0) + line(1)[:-4])
    assert content(Journal(tmp_path, "boot").leftovers()) == line(0)


def test_a_full_disk_costs_no_line_while_the_process_lives(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "boot")
    room = len(line(0)) * 2 + 5
    with full_disk(room):
        for number in range(6):
            journal.write(line(number))
    segments = journal.take()
    assert [segment.path is None for segment in segments] == [False, True]
    # Nothing of the line that did not fit is left in the file.
    assert content(segments) == b"".join(map(line, range(6)))
    assert journal.lost == 0
    journal.not_shipped(segments[1])
    assert content(journal.take()[1:]) == b"".join(map(line, range(2, 6)))


def test_a_directory_that_cannot_be_written_costs_no_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    journal = Journal(tmp_path / "file" / "gateway", "boot")
    journal.write(line(0))
    assert content(journal.take()) == line(0)
    (tmp_path / "file").unlink()
    journal.write(line(1))
    (segment,) = journal.take()
    assert segment.path is not None


def test_what_waits_is_bounded_on_disk_and_in_memory(tmp_path: Path) -> None:
    size = len(line(0))
    journal = Journal(tmp_path, "boot", limit_bytes=10 * size, memory_bytes=5 * size)
    for number in range(20):
        journal.write(line(number))
    assert journal.lost == 5
    assert sum(path.stat().st_size for path in files(tmp_path)) == 10 * size
    for segment in journal.take():
        journal.shipped(segment)
    journal.write(line(20))
    assert content(journal.take()) == line(20)


def test_what_waits_to_be_shipped_is_nobody_elses_leftover(tmp_path: Path) -> None:
    living, other = Journal(tmp_path, "living"), Journal(tmp_path, "other")
    living.write(line(0))
    waiting = living.take()
    assert other.leftovers() == []
    assert content(waiting) == line(0)
    living.close()
    assert content(other.leftovers()) == line(0)


def test_leftovers_belong_to_the_start_that_found_them(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"acks-dead-{number:06d}.ndjson").write_bytes(line(number))
    first, second = Journal(tmp_path, "first"), Journal(tmp_path, "second")
    mine = first.leftovers()
    others = second.leftovers()
    assert first.leftovers() == mine
    assert len({*mine, *others}) == len(mine) + len(others) == 100
    for journal, segments in ((first, mine), (second, others)):
        for segment in segments:
            journal.shipped(segment)
        assert journal.leftovers() == []
    assert files(tmp_path) == []


def test_a_segment_that_somebody_deleted_holds_nothing_up(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "boot")
    journal.write(line(0))
    (gone,) = journal.take()
    assert gone.path is not None
    gone.path.unlink()
    assert content([gone]) == b""
    journal.shipped(gone)
    journal.write(line(1))
    assert content(journal.take()) == line(1)


def test_a_segment_that_is_taken_before_it_is_locked_costs_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, "boot")

    def taken(file: int, operation: int) -> None:
        raise BlockingIOError

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", taken)
        journal.write(line(0))
        journal.write(line(1))
    journal.write(line(2))
    # In memory, and in a segment that is known: in none that `take` does not see.
    assert content(journal.take()) == line(2) + line(0) + line(1)


def test_a_leftover_that_goes_while_it_is_looked_at_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acks-dead-000001.ndjson").write_bytes(line(1))
    gone = tmp_path / "acks-dead-000000.ndjson"
    monkeypatch.setattr(Path, "glob", lambda self, _: [gone, tmp_path / "acks-dead-000001.ndjson"])
    assert content(Journal(tmp_path, "boot").leftovers()) == line(1)


def test_a_shipped_segment_that_cannot_be_deleted_is_not_shipped_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acks-dead-000000.ndjson").write_bytes(line(0))
    journal = Journal(tmp_path, "boot")
    (segment,) = journal.leftovers()

    def refused(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refused)
    journal.shipped(segment)
    assert journal.leftovers() == []
    assert Journal(tmp_path, "other").leftovers() == []
