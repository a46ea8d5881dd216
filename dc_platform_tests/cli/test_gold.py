"""`dcp gold`: which hours are meant, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dc_platform.cli.gold import Target, _span, build, status
from dc_platform.errors import ConfigurationError
from dc_platform_tests.gold.lakes import land, new_lake
from dc_platform_tests.gold.plain import counted as counted
from dc_platform_tests.helpers.gold import expected, gold
from dc_platform_tests.helpers.lake import silver_row

HOUR = 475_520  # 2024-03-31T08


@pytest.mark.parametrize(
    ("hours", "days", "span"),
    [
        ("", "", None),
        ("2024-03-31T08..2024-03-31T09", "", (HOUR, HOUR + 1)),
        ("2024-03-31T08:59", "", (HOUR, HOUR)),
        ("2024-03-31T10:30+02:00..2024-03-31T08:00Z", "", (HOUR, HOUR)),
        ("", "2024-03-31", (HOUR - 8, HOUR + 15)),
        ("", "2024-03-30..2024-03-31", (HOUR - 32, HOUR + 15)),
        ("0001-01-01T00..0001-01-01T00", "", (-17_259_888, -17_259_888)),
    ],
)
def test_both_ends_are_meant(hours: str, days: str, span: tuple[int, int] | None) -> None:
    assert _span(hours, days, full=False) == span


@pytest.mark.parametrize(
    ("hours", "days", "full"),
    [
        ("2024-03-31T09..2024-03-31T08", "", False),
        ("yesterday", "", False),
        ("", "2024-03-31T08..2024-04-01T00", False),
        ("2024-03-31T08", "2024-03-31", False),
        ("", "2024-03-31", True),
    ],
)
def test_what_is_meant_by_nothing_is_said_so(hours: str, days: str, full: bool) -> None:
    with pytest.raises(ConfigurationError):
        _span(hours, days, full=full)


@pytest.mark.usefixtures("counted")
def test_it_builds_and_says_what_is_pending(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = new_lake(tmp_path)
    land(lake, [silver_row(1)])

    def said() -> dict[str, object]:
        answer: dict[str, object] = json.loads(capsys.readouterr().out)
        return answer

    status(as_json=True, data_dir=tmp_path)
    before = said()
    assert before["covered"] == {"silver.events": None, "silver.quarantine": None}
    assert before["pendingDays"] == ["2023-11-14"]
    build(Target.DUCKDB, "", "", full=False, as_json=True, data_dir=tmp_path)
    built = said()
    assert (built["hours"], built["silverVersion"]) == (1, 1)
    assert gold(lake) == expected(lake)
    status(as_json=True, data_dir=tmp_path)
    after = said()
    assert after["covered"] == {"silver.events": 1, "silver.quarantine": 0}
    assert after["pendingDays"] == []
    build(Target.DUCKDB, "", "2023-11-14", full=False, as_json=False, data_dir=tmp_path)
    status(as_json=False, data_dir=tmp_path)
    assert "pending: 0 hours; days: nothing" in capsys.readouterr().out
    with pytest.raises(ConfigurationError, match=r"there is no Trino|no stack|dcp up"):
        build(Target.TRINO, "", "", full=False, as_json=False, data_dir=tmp_path)
