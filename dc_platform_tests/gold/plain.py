"""Plain counting in the place of dbt: what is pending and published is tested without waiting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dc_platform.contracts.gold import GoldSpec
from dc_platform.gold.build import Built
from dc_platform.gold.pending import Pinned, Work, epoch_day
from dc_platform.gold.producers import Make
from dc_platform_tests.helpers.events import HOUR
from dc_platform_tests.helpers.gold import columns, expected


@dataclass(frozen=True)
class Counted(Built):
    """What a build would give."""

    made: dict[str, list[tuple[Any, ...]]]
    work: Work
    version: int

    def rows(self, spec: GoldSpec) -> pa.Table:
        """The rows of the touched hours and days."""
        found = [dict(zip(columns(spec), row, strict=True)) for row in self.made[spec.name]]
        touched = [
            {**row, "silver_version": self.version}
            for row in found
            if (
                row["hour"].timestamp() // 3600 in self.work.hours
                if spec.hourly
                else epoch_day(row["hour_date"]) in self.work.days
            )
        ]
        table = pa.Table.from_pylist(touched, schema=spec.columns)
        return table.sort_by([(name, "ascending") for name in spec.grain])

    def produced(self, spec: GoldSpec, make: Make, work: Work) -> pa.Table:
        """What functions make needs the scratch file that there is not."""
        return spec.columns.empty_table()


def count(pinned: Pinned, work: Work, directory: Path, cache: Path) -> Counted:
    """In the place of `build`."""
    return Counted(directory, [], expected(pinned.lake), work, pinned.silver.version)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of gold count instead of calling dbt."""
    monkeypatch.setattr("dc_platform.gold.run.build", count)


def hour_number(at_ms: int) -> int:
    """Epoch hour of a time in epoch milliseconds."""
    return at_ms // HOUR
