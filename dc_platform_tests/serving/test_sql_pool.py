"""Processes for SQL: what runs too long or crashes ends alone, and nobody gets another's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psutil
import pytest

from dc_platform.serving.guard import RefusedError
from dc_platform.serving.instance import Bounds
from dc_platform.serving.rows import QueryTimeoutError
from dc_platform.serving.sql_pool import QueryDiedError, Running, Workers
from dc_platform.serving.sql_worker import Asked
from dc_platform_tests.stack.harness import wait_for

# Nothing that DuckDB looks at interrupts it.
HANG = "select sum(levenshtein(repeat('x', 20000), repeat('y', 20000) || i)) from range(2048) t(i)"
CRASH = "select list_aggr(range(3000), 'bitstring_agg') from range(3000) t(i)"
ROWS = "select i, repeat('x', 100) as x from range(10000000) t(i)"


def bounds(directory: Path) -> Bounds:
    return Bounds(1, 128, directory, 64, [str(directory)])


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    made = Workers(bounds(tmp_path), seconds=60)
    yield made
    made.close()


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Workers]:
    made = Workers(bounds(tmp_path), seconds=0.5)
    yield made
    made.close()


def asked(sql: str, *views: str) -> Asked:
    return Asked(views, [], sql, [], "csv", None)


def ask(workers: Workers, sql: str = "select 1 as n", tenant: str = "a") -> str:
    with workers.running(tenant) as running:
        return b"".join(running.parts(asked(sql))).decode()


def pid_of(running: Running) -> int:
    pid = running._worker.process.pid
    assert pid is not None
    return pid


def pid_after(workers: Workers, tenant: str) -> int:
    with workers.running(tenant) as running:
        list(running.parts(asked("select 1")))
        return pid_of(running)


@pytest.mark.parametrize(
    "sql",
    [
        HANG,
        "select count(*) from range(1000000) a, range(1000000) b where a.range * b.range = -1",
        # Rows at once, and then none for ever.
        "select i from range(200000) t(i) union all"
        " select a.range from range(1000000) a, range(1000000) b where a.range * b.range = -1",
    ],
)
def test_what_runs_too_long_is_killed(hasty: Workers, tmp_path: Path, sql: str) -> None:
    with pytest.raises(QueryTimeoutError, match="DCP_QUERY_TIMEOUT_SECONDS"):
        ask(hasty, sql)
    assert ask(hasty) == '"n"\n1\n'
    assert list(tmp_path.iterdir()) == []


def test_views_that_are_bound_for_ever_are_killed_too(hasty: Workers) -> None:
    stars = "create temp view v as " + "select *, *, *, *, *, *, *, *, *, * from (" * 7 + "select 1"
    with pytest.raises(QueryTimeoutError), hasty.running("a") as running:
        list(running.parts(asked("select count(*) from v", stars + ")" * 7)))


def test_a_crash_ends_its_query_alone(workers: Workers) -> None:
    answers: list[str] = []
    with workers.running("a") as running:
        parts = running.parts(asked(ROWS))
        next(parts)
        with pytest.raises(QueryDiedError, match="ended the process that ran it"):
            ask(workers, CRASH)
        answers.append(ask(workers, tenant="b"))
        # The other query of the same tenant goes on.
        next(parts)
    assert answers == ['"n"\n1\n']
    assert ask(workers) == '"n"\n1\n'


def test_a_process_that_somebody_kills_in_the_midst_of_the_rows(workers: Workers) -> None:
    with workers.running("a") as running:
        parts = running.parts(asked(ROWS))
        next(parts)
        os.kill(pid_of(running), signal.SIGKILL)
        with pytest.raises(QueryDiedError, match="SIGKILL"):
            list(parts)


def test_a_process_that_somebody_kills_between_two_queries(workers: Workers) -> None:
    first = pid_after(workers, "a")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(first))
    assert ask(workers) == '"n"\n1\n'


def test_a_tenant_gets_its_process_again_and_nobody_elses(workers: Workers) -> None:
    first = pid_after(workers, "a")
    assert pid_after(workers, "a") == first
    other = pid_after(workers, "b")
    assert other != first
    assert (pid_after(workers, "a"), pid_after(workers, "b")) == (first, other)


def test_who_leaves_late_ends_no_other_query(workers: Workers) -> None:
    with workers.running("a") as first:
        list(first.parts(asked("select 1")))
    with workers.running("a") as second:
        parts = second.parts(asked("select i as n from range(200000) t(i)"))
        next(parts)
        assert pid_of(second) == pid_of(first)
        first.interrupt()
        assert b"".join(parts).endswith(b"\n199999\n")


def test_no_more_wait_than_are_worth_it(workers: Workers) -> None:
    pids = [pid_after(workers, f"tenant {n}") for n in range(6)]
    wait_for(lambda: [psutil.pid_exists(pid) for pid in pids] == [False] * 2 + [True] * 4)


@pytest.mark.parametrize("sql", [HANG, ROWS])
def test_who_leaves_ends_the_query(workers: Workers, sql: str) -> None:
    queries: list[Running] = []

    def wait() -> None:
        with workers.running("a") as running:
            queries.append(running)
            with pytest.raises(QueryDiedError):
                list(running.parts(asked(sql)))

    thread = threading.Thread(target=wait)
    thread.start()
    wait_for(lambda: bool(queries))
    queries[0].interrupt()
    thread.join(60)
    assert not thread.is_alive()
    assert workers._idle == []


def test_rows_that_nobody_takes_end_with_their_reader(workers: Workers) -> None:
    with workers.running("a") as running:
        next(running.parts(asked(ROWS)))
        pid = pid_of(running)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("sql", "kind", "words"),
    [
        ("select nowhere", duckdb.BinderException, 'column "nowhere" was not found'),
        ("selec", duckdb.ParserException, "syntax error"),
        ("select 'x'::int", duckdb.ConversionException, "Could not convert"),
        ("select * from read_csv('/etc/hosts')", RefusedError, "Not let through"),
        ("select hll_estimate(1)", duckdb.InvalidInputException, "takes a sketch"),
        (
            "select case when i = 150000 then error('no luck') else i::varchar end from range(200000)"
            " t(i)",
            duckdb.Error,
            "no luck",
        ),
        (
            "select list(repeat('x', 1000) || i) from range(1000000) t(i)",
            duckdb.OutOfMemoryException,
            "Out of Memory",
        ),
    ],
)
def test_errors_are_what_they_were(
    workers: Workers, sql: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        ask(workers, sql)


def test_views_of_a_query_are_gone_after_it(workers: Workers) -> None:
    with workers.running("a") as running:
        query = asked("select n from v", "create temp view v as select 7 as n")
        assert b"".join(running.parts(query)) == b'"n"\n7\n'
    with pytest.raises(duckdb.CatalogException):
        ask(workers, "select n from v")


def test_many_at_once(workers: Workers) -> None:
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(5):
            found = ask(workers, f"select {number * 100 + turn} as n", f"tenant {number % 3}")
            if found != f'"n"\n{number * 100 + turn}\n':
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(workers._idle) <= 4


SERVING = f"""
import os, sys, threading
from pathlib import Path
from dc_platform.serving.instance import Bounds
from dc_platform.serving.sql_pool import Workers
from dc_platform.serving.sql_worker import Asked

directory = Path(sys.argv[1])
workers = Workers(Bounds(1, 128, directory, 64, []), seconds=600)
workers.start()

def ask(sql):
    with workers.running("a") as running:
        list(running.parts(Asked([], [], sql, [], "csv", None)))

# As a query that spills does.
(directory / ("sql-%d-0" % os.getpid())).mkdir()
ask("select 1")
threading.Thread(target=ask, args=({HANG!r},)).start()
threading.Thread(target=ask, args=("select * from range(100000000) order by hash(range)",)).start()
print("running", flush=True)
threading.Event().wait()
"""


def lives(process: psutil.Process) -> bool:
    """Whether it runs; nobody may have asked yet how it ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nothing_is_left_of_a_process_that_is_killed(tmp_path: Path) -> None:
    serving = subprocess.Popen(
        [sys.executable, "-c", SERVING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout is not None
        assert serving.stdout.readline() == "running\n"
        process = psutil.Process(serving.pid)
        # multiprocessing's own two, the spare, and two that run.
        wait_for(lambda: len(process.children(recursive=True)) == 5)
        started = process.children(recursive=True)
    finally:
        serving.kill()
        serving.wait()
    wait_for(lambda: not any(map(lives, started)))
    # The next one removes what those have left on disk.
    workers = Workers(bounds(tmp_path), seconds=60)
    workers.start()
    assert list(tmp_path.iterdir()) == []
    workers.close()


def test_who_leaves_after_the_end_of_a_killed_process_changes_nothing(workers: Workers) -> None:
    with workers.running("a") as running:
        os.kill(pid_of(running), signal.SIGKILL)
        with pytest.raises(QueryDiedError):
            list(running.parts(asked("select 1")))
    running.interrupt()
    running._worker.process.end()
    assert ask(workers) == '"n"\n1\n'
