"""`python -m dc_platform_tests.e2e.fire_sender`: events through the gateway, a tenth of them again.

A process of its own, so that it does not wait for the one that counts. An order (JSON) comes on
standard input; it ends when that is closed, and then prints what was acknowledged, with moments of the
monotonic clock, which all processes of a machine share.

Of each source events are numbered without a gap, and a batch is sent when the one before is
acknowledged. `timestamp` is `base_ms` + number: so an answer that has the count of a source and its
latest timestamp has every event up to that, or it does not, and once, or it does not. With the new
events of a batch go old ones: half of them of those just sent, half of those that silver has.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any

import httpx

_NEW = 0.9
_RECENT = 5_000


class Feed(threading.Thread):
    """Sends for one source."""

    def __init__(self, order: dict[str, Any], number: int, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self.source: str = order["sources"][number]["id"]
        self._key: str = order["sources"][number]["key"]
        self._url = f"{order['gateway']}/api/v1/events"
        self._base: int = order["base_ms"]
        self._batch: int = order["batch"]
        self._pause = order["batch"] * len(order["sources"]) / order["rate"]
        self._salt = number
        self._chosen = random.Random(order["seed"] + number)
        self._ended = ended
        # Events of this source that silver has.
        self.landed = 0
        # Begin of the first attempt, acknowledgement, events by then.
        self.acks: list[tuple[float, float, int]] = []
        self.again_before = self.again_after = self.refused = 0
        self.error = ""

    def run(self) -> None:
        """Until the end, at the rate."""
        try:
            with httpx.Client(headers={"X-API-Key": self._key}, timeout=60) as client:
                sent, due = 0, time.monotonic()
                while not self._ended.is_set():
                    numbers = self._old(sent) if sent else []
                    fresh = range(sent, sent + self._batch - len(numbers))
                    sent = fresh.stop
                    self._send(client, [*numbers, *fresh], sent)
                    # A pause of the machine must not be made up for by a burst.
                    due = max(due + self._pause, time.monotonic() - 1.0)
                    self._ended.wait(max(0.0, due - time.monotonic()))
        except Exception as error:
            self.error = repr(error)

    def _old(self, sent: int) -> list[int]:
        half = round(self._batch * (1 - _NEW) / 2)
        before = self._chosen.choices(range(max(self.landed, sent - _RECENT, 0), sent), k=half)
        after = self._chosen.choices(range(self.landed), k=half) if self.landed else []
        self.again_before += len(before)
        self.again_after += len(after)
        return before + after

    def _send(self, client: httpx.Client, numbers: list[int], total: int) -> None:
        self._chosen.shuffle(numbers)
        body = b"\n".join(self._line(n) for n in numbers)
        begun = time.monotonic()
        while True:
            try:
                answer = client.post(
                    self._url, content=body, headers={"Content-Type": "application/x-ndjson"}
                )
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 200:
                assert answer.json()["accepted"] == len(numbers), answer.text
                self.acks.append((begun, time.monotonic(), total))
                return
            assert answer is None or answer.status_code in (429, 503), answer.text
            self.refused += 1
            time.sleep(0.1)

    def _line(self, n: int) -> bytes:
        return (
            b'{"eventId":"%08x-0000-4000-8000-%012x","timestamp":%d,"eventType":"fire","payload":'
            b'{"sensor":%d,"value":%d.5,"unit":"celsius","site":"hall-%02d","note":"%s"}}'
            % (self._salt, n, self._base + n, n % 977, n % 90, n % 40, b"x" * 80)
        )


def follow_silver(order: dict[str, Any], feeds: list[Feed], ended: threading.Event) -> None:
    """Tell the feeds what has landed."""
    by_source = {feed.source: feed for feed in feeds}
    names = ", ".join(f"'{source}'" for source in by_source)
    sql = f"select source_id, count(*) as n from silver.events where source_id in ({names}) group by 1"
    headers = {"Authorization": f"Bearer {order['token']}"}
    with httpx.Client(headers=headers, timeout=60) as client:
        while not ended.wait(1.0):
            answer = client.post(f"{order['query']}/api/v1/sql", json={"sql": sql})
            if answer.status_code == 200:
                for row in answer.json():
                    by_source[row["source_id"]].landed = row["n"]


def main() -> None:
    """Send until standard input is closed."""
    order = json.loads(sys.stdin.readline())
    ended = threading.Event()
    feeds = [Feed(order, number, ended) for number in range(len(order["sources"]))]
    watcher = threading.Thread(target=follow_silver, args=(order, feeds, ended), daemon=True)
    for thread in (*feeds, watcher):
        thread.start()
    sys.stdin.read()
    ended.set()
    for feed in feeds:
        feed.join(120)
    sent = [
        {
            "source": feed.source,
            "acks": feed.acks,
            "again_before": feed.again_before,
            "again_after": feed.again_after,
            "refused": feed.refused,
            "error": feed.error or ("it still sends" if feed.is_alive() else ""),
        }
        for feed in feeds
    ]
    print(json.dumps(sent))


if __name__ == "__main__":
    main()
