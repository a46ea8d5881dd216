"""The rows of a query that is running, and the time that it may take.

The clock runs only while DuckDB works, so whoever reads does not use up a query's time, and a query
that gives no rows ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from dc_platform.errors import PlatformError, RetriableError
from dc_platform.serving.guard import RefusedError

# Of events of 1 MiB these are as much as one batch of DuckDB's own. DuckDB reserves a batch's memory
# for each column before it has a row: 8 MB for a million rows.
_BATCH_ROWS = 4096


def all_rows(cursor: duckdb.DuckDBPyConnection) -> pa.Table:
    """The rows of the statement that a cursor has executed."""
    return cursor.to_arrow_table(_BATCH_ROWS)


class QueryTimeoutError(PlatformError):
    """The query ran longer than the `seconds` that it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the query ran longer than {seconds:.0f} s (DCP_QUERY_TIMEOUT_SECONDS); ask for less"
        )


# An interrupt that comes just before the statement begins is lost, so there are others.
_AGAIN_SECONDS = 1.0


class Timed(Protocol):
    """What may take too long."""

    def expire(self) -> None:
        """Its time is over."""


class Deadlines:
    """Ends queries that run for longer than `seconds` at a time, from one thread: one of its own for
    each query took 0.2 ms.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._changed = threading.Condition()
        self._ends: dict[Timed, float] = {}
        self._thread: threading.Thread | None = None
        # When the thread looks again; None: when it is told to.
        self._next: float | None = None

    def begin(self, clock: Timed, until: float | None = None) -> None:
        """From now on it has `seconds`, and not longer than `until` (`time.monotonic`). Raises
        QueryTimeoutError when that is over, RetriableError when there is no thread for it.
        """
        now = time.monotonic()
        end = now + self.seconds if until is None else min(until, now + self.seconds)
        if end <= now:
            raise QueryTimeoutError(self.seconds)
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    raise RetriableError(
                        "another query had just taken the memory there was"
                    ) from error
                self._thread = thread
            self._ends[clock] = end
            if self._next is None or end < self._next:
                self._changed.notify()

    def end(self, clock: Timed) -> None:
        """It is in time; once this has returned it does not expire any more."""
        with self._changed:
            self._ends.pop(clock, None)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                late = [clock for clock, end in self._ends.items() if end <= now]
                for clock in late:
                    self._ends[clock] = now + _AGAIN_SECONDS
                    clock.expire()
                self._next = min(self._ends.values(), default=None)
                pause = self.seconds if self._next is None else self._next - now
                if not self._changed.wait(pause) and self._next is None and not self._ends:
                    # Nobody asks; the next query begins another one.
                    self._thread = None
                    return


class Clock:
    """Interrupts a cursor that works past its deadline, `until` at the latest."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        deadlines: Deadlines,
        until: float | None = None,
    ) -> None:
        self._cursor = cursor
        self._deadlines = deadlines
        self._until = until
        self._expired = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """DuckDB works within the block; its errors come out as ours."""
        self._deadlines.begin(self, self._until)
        try:
            with _as_ours():
                yield
        except duckdb.Error as error:
            if self._expired:
                raise QueryTimeoutError(self._deadlines.seconds) from error
            raise
        finally:
            self._deadlines.end(self)

    def expire(self) -> None:
        """The time is over."""
        self._expired = True
        with suppress(duckdb.Error):
            self._cursor.interrupt()


def rows_in_time(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: dict[str, Any],
    deadlines: Deadlines,
    until: float | None,
) -> pa.Table:
    """The rows of our own SQL, within its time."""
    with Clock(cursor, deadlines, until).running():
        return all_rows(cursor.execute(sql, parameters))


@contextmanager
def _as_ours() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # How rows that are already streaming tell of any error of DuckDB's.
        memory = "Out of Memory" in str(error)
        raise (duckdb.OutOfMemoryException if memory else duckdb.Error)(str(error)) from error
    except duckdb.PermissionException as error:
        raise RefusedError(f"Not let through: {error}") from error


class Rows:
    """A schema and batches, to be read once. Running the query begins with it. Integers too wide for
    Arrow come as `wide`: DuckDB's bignum, or varchar.
    """

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        sql: str,
        parameters: Sequence[Any] | Mapping[str, Any],
        *,
        wide: str,
    ) -> None:
        bound = dict(parameters) if isinstance(parameters, Mapping) else list(parameters)
        with _as_ours():
            cursor.execute(sql, bound)
            if rewritten := _without_strange_types(sql, cursor.description or [], wide):
                cursor.execute(rewritten, bound)
            self._reader: pa.RecordBatchReader = cursor.to_arrow_reader(_BATCH_ROWS)
            self.schema: pa.Schema = self._reader.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            with _as_ours():
                batch = next(self._reader, None)
            if batch is None:
                return
            yield batch


# Types that Arrow has not, or that DuckDB hands over wrong: an UHUGEINT as a signed number.
_AS_TEXT = frozenset({"bit", "time with time zone"})
_WIDE = frozenset({"uhugeint", "bignum"})


def _without_strange_types(sql: str, description: Sequence[Any], wide: str) -> str | None:
    """The SQL with casts around it; None when it needs none. `wide` is what integers of more than
    127 bits become.
    """
    try:
        types = [_target(column[1], wide) for column in description]
    except RecursionError:
        raise RefusedError("The type of a column is nested too deeply.") from None
    if not any(types):
        return None
    columns = ", ".join(
        f"c{n}{f'::{type_}' if type_ else ''} as {_quoted(column[0])}"
        for n, (type_, column) in enumerate(zip(types, description, strict=True))
    )
    names = ", ".join(f"c{n}" for n in range(len(types)))
    return f"select {columns} from ({sql}) as t({names})"


def _target(type_: Any, wide: str) -> str | None:
    """The type to cast to, None when it may stay."""
    kind = type_.id
    if kind in _WIDE:
        return None if kind == wide else wide
    if kind in _AS_TEXT:
        return "varchar"
    if kind not in ("list", "array", "struct", "map", "union"):
        return None
    children = [(name, t, _target(t, wide)) for name, t in type_.children if hasattr(t, "id")]
    if not any(target for _, _, target in children):
        return None
    inner = [(name, target or str(t)) for name, t, target in children]
    if kind == "list":
        return f"{inner[0][1]}[]"
    if kind == "array":
        return f"{inner[0][1]}[{type_.children[1][1]}]"
    if kind == "map":
        return f"map({inner[0][1]}, {inner[1][1]})"
    if kind == "union":
        inner = inner[1:]  # The first is the tag.
    if any(not name for name, _ in inner):
        raise RefusedError(f"Name the members of {type_}: {{'a': …}} in place of row(…).")
    return f"{kind}({', '.join(f'{_quoted(name)} {target}' for name, target in inner)})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
