"""`kill -9` anything, while clients send: the audit says 0 lost, 0 doubled, 0 invented.

Every part is killed in turn, both landing runs of a topic that is landed in two slots, and the
supervisor too (then `dcp up` takes over). Meanwhile 50,000 events with unique ids are sent by clients
that repeat a request until it is acknowledged, and a reader asks the union again and again: it must
never count an event twice.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import httpx
import pytest

from dc_platform.broker.client import partition_of
from dc_platform.settings import Settings
from dc_platform_tests.e2e.platform import Platform, Source, running, wait_for

EVENTS = 50_000
BATCH = 50
# So that the last event is sent after the last kill; from then on as fast as they are taken.
PER_SECOND = 400
SLOTS = SENDERS = 2
VICTIMS = (
    *("gateway", "landing", "landing_1", "dagster_daemon", "code_server", "serving", "kafka"),
    "supervisor",
)
PAUSE_SECONDS = 4.0

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]


class Sender(threading.Thread):
    """Sends its share of the events; `acknowledged` are ids that an answer 200 covered."""

    def __init__(self, platform: Platform, source: Source, ids: list[str]) -> None:
        super().__init__(daemon=True)
        self._platform = platform
        self._source = source
        self._ids = ids
        self.acknowledged: list[str] = []
        self.hurry = threading.Event()
        self.attempts = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with httpx.Client(headers={"X-API-Key": self._source.key}, timeout=20) as client:
                for start in range(0, len(self._ids), BATCH):
                    self._send(client, self._ids[start : start + BATCH])
        except Exception as error:
            self.error = error

    def _send(self, client: httpx.Client, ids: list[str]) -> None:
        events = [{"eventId": i, "eventType": "k", "payload": {"of": EVENTS}} for i in ids]
        begun = time.monotonic()
        while True:
            self.attempts += 1
            try:
                url = f"{self._platform.info['gateway']}/api/v1/events"
                answer = client.post(url, json={"events": events})
            except httpx.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code == 200:
                assert answer.json()["accepted"] == len(ids)
                self.acknowledged += ids
                break
            assert answer.status_code in (503, 429), answer.text
            time.sleep(0.2)
        self.hurry.wait(max(0.0, BATCH * SENDERS / PER_SECOND - (time.monotonic() - begun)))


class Reader(threading.Thread):
    """Counts the union for as long as the test lasts."""

    def __init__(self, platform: Platform, token: str) -> None:
        super().__init__(daemon=True)
        self._platform = platform
        self._token = token
        self._ended = threading.Event()
        self.answers = 0
        self.doubled: list[dict[str, int]] = []

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                found = self._platform.rows(
                    "select count(*) as n, count(distinct event_id) as ids from events", self._token
                )[0]
            except (httpx.HTTPError, AssertionError):
                time.sleep(0.2)
                continue
            self.answers += 1
            if found["n"] != found["ids"]:
                self.doubled.append(found)
            time.sleep(0.05)

    def end(self) -> None:
        self._ended.set()
        self.join(timeout=60)


def test_killing_every_part_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCP_LANDING_SLOTS", str(SLOTS))
    with running(tmp_path / "stack") as platform:
        sources, token = source_of_each_slot(platform), platform.token("query")
        ids = [str(uuid.uuid4()) for _ in range(EVENTS)]
        share = EVENTS // SENDERS
        senders = [
            Sender(platform, sources[i], ids[i * share : (i + 1) * share]) for i in range(SENDERS)
        ]
        reader = Reader(platform, token)
        for thread in (*senders, reader):
            thread.start()
        killed = kill_all_in_turn(platform)
        assert any(sender.is_alive() for sender in senders), "all events were sent before the end"
        for sender in senders:
            sender.hurry.set()
        for sender in senders:
            sender.join(timeout=400)
        assert [s.error for s in senders] == [None] * SENDERS
        acknowledged = [i for sender in senders for i in sender.acknowledged]
        assert sorted(acknowledged) == sorted(ids)
        wait_for(lambda: landed_count(platform, token) >= EVENTS, 240, "all events in silver")
        reader.end()
        audit(platform, token, set(ids))
        assert list(killed) == list(VICTIMS)
        assert reader.answers > 50
        assert reader.doubled == []
        assert sum(s.attempts for s in senders) > EVENTS // BATCH, "no request had to be repeated"


def source_of_each_slot(platform: Platform) -> list[Source]:
    """A source's events are in one partition, and that is in one slot."""
    found: dict[int, Source] = {}
    while len(found) < SLOTS:
        source = platform.source(f"killed-{uuid.uuid4().hex[:6]}")
        partition = partition_of(source.source_id, Settings().topic_partitions)
        found[partition % SLOTS] = source
    return [found[number] for number in range(SLOTS)]


def kill_all_in_turn(platform: Platform) -> dict[str, int]:
    """Kill each part once, and see it come back under another process id."""
    killed = {}
    for part in VICTIMS:
        pid = killed[part] = platform.kill(part)
        if part == "supervisor":
            platform.up()

        def back(part: str = part, pid: int = pid) -> bool:
            return platform.pid(part) not in (None, pid)

        # Dagster starts another run when one is seen to be dead; until then the slot stands still.
        if not part.startswith("landing"):
            wait_for(back, 120, f"{part} to come back")
        time.sleep(PAUSE_SECONDS)
    return killed


def landed_count(platform: Platform, token: str) -> int:
    try:
        return int(platform.rows("select count(*) as n from silver.events", token)[0]["n"])
    except (httpx.HTTPError, AssertionError):
        return 0


def audit(platform: Platform, token: str, ids: set[str]) -> None:
    """Silver and the union hold exactly the acknowledged events, each once."""
    for table in ("silver.events", "events"):
        found = Counter(
            r["event_id"] for r in platform.rows(f"select event_id from {table}", token)
        )
        assert set(found) - ids == set(), f"{table}: invented"
        assert ids - set(found) == set(), f"{table}: lost"
        assert [i for i, n in found.items() if n > 1] == [], f"{table}: doubled"
