"""What a data directory says about its stack: `stack.json` and `stack-config.json`.

`stack.json` is replaced whole whenever something changes, so a reader never sees half of it. It is
also the memory from which a new supervisor, or `dcp down`, knows the parts of one that died.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dc_platform.stack.processes import Identity

_LANDING = "landing"


def landing_name(slot: int) -> str:
    """What the run of a landing slot is called among the parts."""
    return f"{_LANDING}_{slot}" if slot else _LANDING


def _landing_slots(pids: dict[str, int]) -> dict[int, int]:
    names = {name: name.removeprefix(_LANDING) for name in pids if name.startswith(_LANDING)}
    return {int(rest.removeprefix("_") or 0): pids[name] for name, rest in names.items()}


@dataclass
class PartRecord:
    """A part as the supervisor last saw it."""

    state: str = "waiting"
    where: str = ""
    pid: int | None = None
    started: float = 0.0
    restarts: int = 0
    early_deaths: int = 0
    stage: int = 0
    grace: float = 10.0
    groups: list[int] = field(default_factory=list)
    note: str = ""

    @property
    def identity(self) -> Identity | None:
        """The process of the part, None when there is none."""
        return Identity(self.pid, self.started) if self.pid else None


@dataclass
class StackRecord:
    """The content of `stack.json`, as far as the stack itself needs it."""

    stack_id: str
    addresses: dict[str, str | None]
    parts: dict[str, PartRecord] = field(default_factory=dict)
    supervisor: Identity | None = None
    # Landing slot → process id of its run.
    landing: dict[int, int] = field(default_factory=dict)
    started_at: str = ""
    ready: bool = False

    def as_json(self) -> dict[str, Any]:
        """The keys that others rely on, and beside them those that only the stack reads."""
        pids = {name: part.pid for name, part in self.parts.items() if part.pid}
        if self.supervisor:
            pids = {"supervisor": self.supervisor.pid, **pids}
        pids |= {landing_name(slot): pid for slot, pid in self.landing.items()}
        return {
            **self.addresses,
            "pids": pids,
            "ready": self.ready,
            "started_at": self.started_at,
            "stack_id": self.stack_id,
            "supervisor": self.supervisor._asdict() if self.supervisor else None,
            "parts": {name: asdict(part) for name, part in self.parts.items()},
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> StackRecord:
        """The record that `as_json` gave."""
        own = {"pids", "ready", "started_at", "stack_id", "supervisor", "parts"}
        supervisor = content.get("supervisor")
        return cls(
            stack_id=content.get("stack_id", ""),
            addresses={name: value for name, value in content.items() if name not in own},
            parts={name: PartRecord(**part) for name, part in content.get("parts", {}).items()},
            supervisor=Identity(**supervisor) if supervisor else None,
            landing=_landing_slots(content.get("pids", {})),
            started_at=content.get("started_at", ""),
            ready=content.get("ready", False),
        )


class StackDirectory:
    """The files of one stack."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.stack_file = self.path / "stack.json"
        self.config_file = self.path / "stack-config.json"
        self.lock_file = self.path / "supervisor.lock"
        self.dagster = self.path / "dagster"
        self.kafka = self.path / "kafka"
        self.trino = self.path / "trino"

    @property
    def stack_id(self) -> str:
        """The stack's name in the environment of its processes.

        It follows from the path: a copy of the directory is another stack, and does not own the
        processes that are recorded in it.
        """
        return hashlib.sha256(str(self.path.resolve()).encode()).hexdigest()[:16]

    def log(self, name: str) -> Path:
        """The log of a part."""
        return self.logs / f"{name}.log"

    def read(self) -> StackRecord | None:
        """The record of this stack; None when there is none, or when it is another one's copy."""
        content = _read_json(self.stack_file)
        if content is None:
            return None
        record = StackRecord.from_json(content)
        return record if record.stack_id == self.stack_id else None

    def write(self, record: StackRecord) -> None:
        """Replace `stack.json`."""
        _write_json(self.stack_file, record.as_json())

    def read_ports(self) -> dict[str, int]:
        """The ports of the last start."""
        return dict((_read_json(self.config_file) or {}).get("ports", {}))

    def write_ports(self, ports: dict[str, int]) -> None:
        """Remember the ports."""
        _write_json(self.config_file, {"ports": ports})


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f".{path.name}.{os.getpid()}")
    written.write_text(json.dumps(content, indent=2) + "\n")
    written.replace(path)
