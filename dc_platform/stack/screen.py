"""What runs where, on one screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dc_platform.errors import PlatformError
from dc_platform.stack.hints import DASHBOARD, Caller
from dc_platform.stack.processes import Usage
from dc_platform.stack.record import PartRecord, landing_name

if TYPE_CHECKING:
    from dc_platform.stack.supervisor import Supervisor

# (base URL of serving, data directory) → the dashboard's address, signed in.
SignedIn = Callable[[str, Path], str]

_COLOURS = {"ready": "green", "starting": "yellow", "waiting": "yellow", "unwell": "red"}


class Row(NamedTuple):
    """One part as it is shown."""

    name: str
    state: str
    pid: int | None
    where: str
    restarts: int
    usage: Usage | None
    note: str = ""


_IDLE = Row("landing", "idle", None, "", 0, None)


class Screen:
    """The table of a supervisor on a terminal, renewed at each turn of its loop."""

    def __init__(self, console: Console, caller: Caller, signed_in: SignedIn) -> None:
        self._caller = caller
        self._signed_in = signed_in
        self._link: str | None = None
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._landing: dict[int, psutil.Process] = {}

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    def show(self, supervisor: Supervisor, more: Iterable[str] = ()) -> None:
        """Draw the present state, with `more` lines below it."""
        record = supervisor.record
        rows = [
            Row(name, unit.state, unit.pid, unit.part.where, unit.restarts, unit.usage(), unit.note)
            for name, unit in supervisor.units.items()
        ]
        rows += self._landing_rows(record.landing)
        hints = [
            self._shown(h, supervisor)
            for h in self._caller.hints(record, supervisor.directory.path)
        ]
        self._live.update(Group(table(rows), *hints, *more), refresh=True)

    def _shown(self, hint: str, supervisor: Supervisor) -> Text:
        """A line as it is; the dashboard's address leads there signed in, and no token is seen."""
        if not hint.startswith(DASHBOARD) or not supervisor.record.ready:
            return Text(hint)
        base = str(supervisor.record.addresses["query"])
        if self._link is None:
            try:
                self._link = self._signed_in(base, supervisor.directory.path)
            except PlatformError:
                # A registry that is away must not end the stack; the hint says another way.
                return Text(hint)
        return Text.assemble(DASHBOARD, (f"{base}/dashboard/", f"link {self._link}"), " (click)")

    def _landing_rows(self, landing: Mapping[int, int]) -> list[Row]:
        """The processes that hold the landing leases: run workers of Dagster."""
        self._landing = {pid: p for pid, p in self._landing.items() if pid in landing.values()}
        rows = []
        for slot, pid in landing.items():
            try:
                process = self._landing.setdefault(pid, psutil.Process(pid))
                usage = Usage(process.memory_info().rss, process.cpu_percent() / 100)
            except psutil.Error:
                continue
            rows.append(Row(landing_name(slot), "ready", pid, "", 0, usage))
        return rows or [_IDLE]


def table(rows: Iterable[Row]) -> Table:
    """The parts, one per line."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("part", "state", "pid", "where"):
        shown.add_column(header)
    for header in ("restarts", "memory", "CPU"):
        shown.add_column(header, justify="right")
    for row in rows:
        shown.add_row(
            row.name,
            Text(row.state, style=_COLOURS.get(row.state, "dim")),
            str(row.pid or ""),
            row.where or row.note,
            str(row.restarts or ""),
            f"{row.usage.memory / 2**20:.0f} MiB" if row.usage else "",
            f"{row.usage.cpu:.0%}" if row.usage else "",
        )
    return shown


def recorded_rows(parts: Mapping[str, PartRecord], landing: Mapping[int, int]) -> list[Row]:
    """Rows of a stack that another process supervises."""
    handles: dict[str, psutil.Process] = {}
    runs = {landing_name(slot): pid for slot, pid in landing.items()}
    pids = {name: part.pid for name, part in parts.items()} | runs
    for name, pid in pids.items():
        if pid:
            try:
                handles[name] = psutil.Process(pid)
                handles[name].cpu_percent()
            except psutil.Error:
                handles.pop(name, None)
    # The processor's share is that of the time between two looks.
    psutil.cpu_percent(interval=0.5)
    rows = [
        Row(name, part.state, part.pid, part.where, part.restarts, _usage(handles.get(name)))
        for name, part in parts.items()
    ]
    rows += [Row(n, "ready", pid, "", 0, _usage(handles.get(n))) for n, pid in runs.items()]
    return rows if runs else [*rows, _IDLE]


def _usage(handle: psutil.Process | None) -> Usage | None:
    try:
        return Usage(handle.memory_info().rss, handle.cpu_percent() / 100) if handle else None
    except psutil.Error:
        return None
