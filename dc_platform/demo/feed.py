"""Feeds the demo's sources into a stack, from the moment it is ready until it is told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import httpx

from dc_platform.demo import flights, telemetry
from dc_platform.demo.sender import NotAcknowledgedError, Sender
from dc_platform.registry.database import Database
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.settings import Settings

log = logging.getLogger(__name__)


class Feed:
    """Two threads, one per source. `lines` says how far they are."""

    def __init__(self, data_dir: Path, *, per_second: int) -> None:
        self._data_dir = data_dir
        self._per_second = per_second
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sent = {flights.SOURCE: 0, telemetry.SOURCE: 0}

    @property
    def running(self) -> bool:
        """Whether it was started."""
        return bool(self._threads)

    def start(self, gateway: str) -> None:
        """Begin to send to a gateway that is ready."""
        self._run(flights.SOURCE, SourceType.APPLICATION, gateway, self._replay)
        self._run(telemetry.SOURCE, SourceType.SERVER, gateway, self._follow)

    def stop(self) -> None:
        """Stop sending; what was not acknowledged is not claimed to be there."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def lines(self) -> list[str]:
        """What has been acknowledged so far."""
        sent, whole = self._sent[flights.SOURCE], flights.count()
        return [
            f"flights         {sent:,} of {whole:,} events of January 2001 acknowledged",
            f"host-telemetry  {self._sent[telemetry.SOURCE]:,} events of this host acknowledged",
        ]

    def _run(
        self,
        name: str,
        type_: SourceType,
        gateway: str,
        work: Callable[[Sender, Callable[[int], None]], None],
    ) -> None:
        key = source_key(self._data_dir, name, type_)

        def count(accepted: int) -> None:
            self._sent[name] += accepted

        def run() -> None:
            sender = Sender(gateway, key, self._stop)
            try:
                work(sender, count)
            except (httpx.HTTPError, NotAcknowledgedError) as error:
                if not self._stop.is_set():
                    log.error("%s stopped: %s", name, error)
            finally:
                sender.close()

        thread = threading.Thread(target=run, name=f"demo-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _replay(self, sender: Sender, count: Callable[[int], None]) -> None:
        flights.replay(sender, self._stop, per_second=self._per_second, progress=count)

    def _follow(self, sender: Sender, count: Callable[[int], None]) -> None:
        telemetry.follow(sender, self._data_dir, self._stop, progress=count)


def source_key(data_dir: Path, name: str, type_: SourceType) -> str:
    """The key of a demo source, which is created the first time."""
    path = data_dir / "secrets" / f"demo-{name}.key"
    sources = Sources(Database(Settings(data_dir=data_dir).registry))
    if path.exists():
        key = path.read_text().strip()
        if sources.owner_of(key) is not None:
            return key
    _source, key = sources.create(name, type_)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(key)
    return key
