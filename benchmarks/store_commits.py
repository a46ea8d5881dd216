"""`python -m benchmarks.store_commits`: what a store allows: commits a second to one Delta table.

The commit protocol alone, on a local disk and on S3 (a real SeaweedFS on this machine). Each writer is
a process that writes a small Parquet file and commits it with silver's options: a compare-and-swap on
the table's version, tried again from the newest one when another writer was first. They do not take
turns, as landing does, so they race: a store that ignored the condition of a put would let one commit
overwrite another. It fails unless each version of the table is one commit that was answered, and the
table has its rows. The last line printed is a JSON object.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from benchmarks.writers import Clock, land_until, share_of_slowest, side_by_side
from benchmarks.writers import options as given_options
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.table import AFTER_COMMIT
from dc_platform.stack.ports import choose

WEED = Path(__file__).parent / ".venv" / "bin" / "weed"
_BUCKET = "lake"
KEY, SECRET = "benchmark", "benchmark"
_START_SECONDS = 60.0
_PORTS = (
    *("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port"),
    *("volume.port.grpc", "filer.port", "filer.port.grpc", "s3.port.iceberg"),
)
_SCHEMA = pa.schema([("id", pa.string())])

Options = Mapping[str, str]


class Done(NamedTuple):
    """What one writer did: commits in all and within the clock, tries, seconds of the slowest."""

    commits: int
    within: int
    tries: int
    slowest_seconds: float


@contextmanager
def seaweed(directory: Path) -> Iterator[tuple[str, Options]]:
    """(URI of an empty lake, options of delta-rs) on a store of its own."""
    directory.mkdir(parents=True)
    identity = {
        "name": "bench",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    # Two blocks of free ports have enough.
    free = [port for _ in range(2) for port in choose(needed=(), remembered={}, auto=True).values()]
    chosen = dict(zip(_PORTS, free, strict=False))
    command = [
        *(str(WEED), f"-logdir={directory}", "server", "-s3", "-ip=127.0.0.1"),
        *(f"-dir={directory}", f"-s3.config={directory / 's3.json'}"),
        *(f"-{name}={port}" for name, port in chosen.items()),
    ]
    with (directory / "weed.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    endpoint = f"http://127.0.0.1:{chosen['s3.port']}"
    try:
        _wait_for_bucket(endpoint, server, directory / "weed.log")
        yield (
            f"s3://{_BUCKET}",
            {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ALLOW_HTTP": "true",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "aws_conditional_put": "etag",
            },
        )
    finally:
        server.kill()
        server.wait()


def _wait_for_bucket(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx.get(endpoint, timeout=2)
            _store(endpoint).create_dir(_BUCKET)
            return
        except (OSError, httpx.HTTPError) as error:
            if server.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace")[-2000:]
                raise SystemExit(f"SeaweedFS did not start ({error}):\n{said}") from error
            time.sleep(0.5)


def _store(endpoint: str) -> pafs.S3FileSystem:
    return pafs.S3FileSystem(
        access_key=KEY,
        secret_key=SECRET,
        endpoint_override=endpoint,
        region="us-east-1",
        allow_bucket_creation=True,
    )


def _open(uri: str, options: Options) -> DeltaTable:
    return DeltaTable(uri, storage_options=dict(options))


def _write_file(uri: str, options: Options, number: int, events: int) -> AddAction:
    name = f"{uuid.uuid4()}.parquet"
    table = pa.table({"id": [f"{number}-{row}" for row in range(events)]}, schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    body = sink.getvalue()
    if options:
        store = _store(options["AWS_ENDPOINT_URL"])
        path = f"{uri.removeprefix('s3://')}/{name}"
    else:
        store, path = pafs.LocalFileSystem(), f"{uri}/{name}"
    with store.open_output_stream(path) as out:
        out.write(body)
    stats = json.dumps({"numRecords": events})
    return AddAction(name, body.size, {}, time.time_ns() // 1_000_000, True, stats)


def commit_once(table: DeltaTable, action: AddAction, app: str, offset: int) -> bool:
    """Whether it is in the table: False when another writer was first."""
    properties = CommitProperties(max_commit_retries=0, app_transactions=[Transaction(app, offset)])
    try:
        table.create_write_transaction(
            [action],
            mode="append",
            schema=table.schema(),
            commit_properties=properties,
            post_commithook_properties=AFTER_COMMIT,
        )
    except CommitFailedError:
        return False
    finally:
        table.update_incremental()
    return True


def write(uri: str, options: Options, number: int, events: int, clock: Clock) -> Done:
    """One writer: commit until the clock ends."""
    table = _open(uri, options)
    tries = 0

    def commit(offset: int) -> None:
        nonlocal tries
        action = _write_file(uri, options, number, events)
        while True:
            tries += 1
            if commit_once(table, action, f"writer-{number}", offset):
                return

    clock.start()
    within, slowest = land_until(clock.ended, count(), commit)
    # The clock ended within one more.
    return Done(within + 1, within, tries, slowest)


def measure(
    root: str, options: Options, writers: int, *, events: int, seconds: float
) -> dict[str, Any]:
    """So many writers on one new table for so long."""
    uri = f"{root}/table-{writers}"
    DeltaTable.create(
        uri,
        schema=_SCHEMA,
        configuration=SILVER_EVENTS.properties,
        storage_options=dict(options),
    )
    each = [(uri, options, number, events) for number in range(writers)]
    done = side_by_side(write, each, seconds)
    commits = sum(one.commits for one in done)
    table = _open(uri, options)
    rows = sum(pa.table(table.get_add_actions(flatten=True))["num_records"].to_pylist())
    if (table.version(), rows) != (commits, commits * events):
        raise SystemExit(
            f"{uri}: {commits} commits were answered; its version is {table.version()}, its rows are"
            f" those of {rows / events} commits"
        )
    return {
        "writers": writers,
        "commits_per_second": round(sum(one.within for one in done) / seconds, 1),
        "slowest_writers_share": share_of_slowest([one.within for one in done]),
        "slowest_commit_seconds": round(max(one.slowest_seconds for one in done), 2),
        "tries_per_commit": round(sum(one.tries for one in done) / commits, 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    given = given_options("store_commits", __doc__, arguments)
    directory = Path(tempfile.mkdtemp(prefix="dcp-store-commits-"))
    found: dict[str, Any] = {}
    try:
        local = directory / "lake"
        local.mkdir()
        with seaweed(directory / "weed") as (uri, options):
            for name, root, how in (("local_disk", str(local), {}), ("s3", uri, options)):
                found[name] = []
                for writers in given.writers:
                    found[name].append(
                        measure(root, how, writers, events=given.events, seconds=given.seconds)
                    )
                    print(name, found[name][-1], file=sys.stderr)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
