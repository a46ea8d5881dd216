"""Where to look and what to type next: each printed command works where it was printed."""

from __future__ import annotations

import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from dc_platform.settings import Settings
from dc_platform.stack.record import StackRecord

_DEFAULT_DATA = Path(".dcp")
# What the line begins with that a terminal may show as a link.
DASHBOARD = "Dashboard  "


@dataclass(frozen=True)
class Caller:
    """Where somebody typed a command. A supervisor leaves that directory, so this is taken before."""

    directory: Path
    program: str
    data_dir: Path

    @classmethod
    def here(cls) -> Caller:
        """The caller of this process."""
        directory = Path.cwd()
        return cls(directory, _program(directory), directory / Settings().data_dir)

    def dcp(self, data_dir: Path, words: str) -> str:
        """A command on the stack in `data_dir`; `words` are its verb and what follows."""
        # Left out only where another shell in this directory would not need it either.
        if data_dir == self.data_dir == self.directory / _DEFAULT_DATA:
            return f"{self.program} {words}"
        return f"{self.program} {words} --data-dir {shlex.quote(_shown(data_dir, self.directory))}"

    def hints(self, record: StackRecord, data_dir: Path) -> list[str]:
        """Where to look next."""
        where = record.addresses
        token = self.dcp(data_dir, "token create --scope query")
        link = self.dcp(data_dir, "dashboard")
        sql = self.dcp(data_dir, 'sql "select count(*) from events"')
        return [
            "",
            f"{DASHBOARD}{where.get('query')}/dashboard/, signed in with the link of: {link}",
            f"Dagster    {where.get('dagster')}",
            f"Gateway    {where.get('gateway')}/api/v1/events",
            f"Query      {where.get('query')}/api/v1/sql, with a token of: {token}",
            f"SQL        {sql}",
            f"Logs       {_shown(data_dir / 'logs', self.directory)}",
            f"End        {self.dcp(data_dir, 'down')}",
        ]


def _program(directory: Path) -> str:
    """How this installation's `dcp` is called from there."""
    script = Path(sys.executable).with_name("dcp")
    if not script.is_file():
        return f"{shlex.quote(sys.executable)} -m dc_platform.cli.main"
    found = shutil.which("dcp")
    if found and Path(found).samefile(script):
        return "dcp"
    return shlex.quote(_shown(script, directory))


def _shown(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)
