"""What a person sees of downloads: one bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_LINE_SECONDS = 10.0


def line(what: str, text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"{what}: {text}\n")
    sys.stderr.flush()


class Counter:
    """Counts files and bytes of one download; `show` gets the share that is done and a text."""

    def __init__(self, show: Callable[[float, str], None], say: Callable[[str], None]) -> None:
        self._show = show
        self.say = say
        self._files = 0
        self._done = 0
        self._bytes = 0

    def expect(self, files: int) -> None:
        """How many files there will be."""
        self._files = files

    @contextmanager
    def file(self, _name: str, size: int) -> Iterator[Callable[[int], None]]:
        """jgo's progress callback: one file of `size` bytes; the function takes further bytes."""
        here = 0

        def more(count: int) -> None:
            nonlocal here
            here += count
            self._bytes += count
            share = (self._done + min(here / size, 1.0)) / max(self._files, 1)
            self._show(
                min(share, 1.0),
                f"{min(self._done + 1, self._files)}/{self._files} files,"
                f" {self._bytes / 2**20:.0f} MiB",
            )

        yield more
        self._done += 1


@contextmanager
def downloads(what: str) -> Iterator[Counter]:
    """Show one download on standard error."""
    if sys.stderr.isatty():
        with _bar(what) as counter:
            yield counter
    else:
        with _lines(what) as counter:
            yield counter


@contextmanager
def _bar(what: str) -> Iterator[Counter]:
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=1.0, text="")
        yield Counter(
            lambda share, text: progress.update(task, completed=share, text=text),
            lambda text: progress.console.print(f"{what}: {text}"),
        )


@contextmanager
def _lines(what: str) -> Iterator[Counter]:
    began = last = time.monotonic()

    def show(share: float, text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            line(what, f"{share:.0%}, {text}")

    line(what, "downloading")
    yield Counter(show, partial(line, what))
    line(what, f"downloaded in {time.monotonic() - began:.0f} s")
