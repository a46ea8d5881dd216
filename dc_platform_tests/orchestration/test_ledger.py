"""The check `ledger_balances` is green only when the ledger can tell."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dc_platform.contracts.acks import Ack, Count
from dc_platform.contracts.ops_tables import ACKS
from dc_platform.errors import BrokerUnavailableError
from dc_platform.lake.ledger import update_ledger
from dc_platform.lake.parquet import write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.acks import AcksLanded, ack_rows
from dc_platform.orchestration import ledger
from dc_platform.orchestration.ledger import keep_ledger
from dc_platform.settings import settings


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    monkeypatch.setenv("DCP_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(ledger, "_AGAIN_SECONDS", 0.0)
    settings.cache_clear()
    answer(monkeypatch, AcksLanded())
    yield Lake(settings().lake)
    settings.cache_clear()


def answer(monkeypatch: pytest.MonkeyPatch, *answers: AcksLanded | Exception) -> None:
    """What landing the acknowledgements gives, one after the other; the last one for ever."""
    left = list(answers)

    def land_acks(*args: Any) -> AcksLanded:
        given = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(given, Exception):
            raise given
        return given

    monkeypatch.setattr(ledger, "land_acks", land_acks)


def acknowledge(
    lake: Lake, ago: timedelta, block: str = "g/b/1", received_ago: timedelta | None = None
) -> None:
    """A block of two events that never lands; of a replay `received_ago` is longer."""
    at, received = (
        round((datetime.now(UTC) - since).timestamp() * 1000)
        for since in (ago, received_ago or ago)
    )
    ack = Ack(block, "t", "topic", 0, 0, "valid", at, [Count("s", received // 3_600_000, 2)])
    lake.ensure(ACKS)
    now = datetime.now(UTC)
    file = write_file(lake, ACKS, ack_rows([ack], now), partition=now.date())
    LakeTable(lake, ACKS).commit([file], txns={}, exact=True)


def test_what_is_on_its_way_is_no_finding(own: Lake) -> None:
    acknowledge(own, timedelta(minutes=59))
    kept = keep_ledger()
    assert (kept.passed, kept.findings["findings"]) == (True, 0)
    assert kept.description.startswith("As of 20")
    assert kept.metadata["in_flight (90 days)"] == 2


def test_what_was_on_its_way_hours_ago_is_one_though_nothing_moves(own: Lake) -> None:
    acknowledge(own, timedelta(hours=2))
    for _ in range(2):
        kept = keep_ledger()
        assert (kept.passed, kept.findings["findings"]) == (False, 1)
        (example,) = kept.findings["examples"].value
        assert example["what"] == "in flight for more than an hour after its hour"
        assert example["in flight"] == 2


def test_what_is_replayed_has_its_hour_from_the_acknowledgement_on(own: Lake) -> None:
    acknowledge(own, timedelta(minutes=59), received_ago=timedelta(days=3))
    assert keep_ledger().passed
    acknowledge(own, timedelta(minutes=61), "g/b/2", received_ago=timedelta(days=3))
    kept = keep_ledger()
    assert not kept.passed
    (example,) = kept.findings["examples"].value
    assert example["what"] == "in flight for more than an hour after its hour"


def test_rows_of_an_update_that_has_to_wait_are_judged_as_of_when_they_were_made(
    own: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledge(own, timedelta(minutes=59))
    update_ledger(own)
    acknowledge(own, timedelta(minutes=59), "g/b/2")
    monkeypatch.setattr(ledger, "is_due", lambda lake, now: False)
    later = datetime.now(UTC) + timedelta(hours=3)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return later

    monkeypatch.setattr(ledger, "datetime", Clock)
    kept = keep_ledger(at_once=False)
    assert kept.passed
    assert kept.metadata["as of"] < later.isoformat()


def test_acknowledgements_that_cannot_be_read_fail_the_check(
    own: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = BrokerUnavailableError("Kafka is away: dcp status")
    answer(monkeypatch, away)
    kept = keep_ledger()
    assert not kept.passed
    assert "Cannot tell: the newest acknowledgements were not read: Kafka is away" in (
        kept.description
    )
    # The tables are compared all the same.
    assert kept.metadata["hours made anew"] == "all"
    answer(monkeypatch, away, AcksLanded())
    assert keep_ledger().passed


def test_what_landing_the_acknowledgements_doubts_fails_the_check(
    own: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, AcksLanded(doubts=("lines are gone",)))
    kept = keep_ledger()
    assert not kept.passed
    assert kept.findings["cannot tell"].value == ["lines are gone"]


@pytest.mark.parametrize("part", ["update_ledger", "ledger_rows", "is_due"])
def test_a_ledger_that_is_not_kept_fails_the_check(
    own: Lake, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    assert keep_ledger().passed

    def fail(*args: Any, **more: Any) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(ledger, part, fail)
    kept = keep_ledger(at_once=part != "is_due")
    assert not kept.passed
    assert "RuntimeError: no memory left" in kept.description
    assert kept.metadata["as of"].startswith("20")
