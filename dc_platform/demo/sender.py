"""A client as clients should be: gives its events ids and sends them again until acknowledged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import httpx
from tenacity import Retrying, retry_if_exception_type, wait_exponential

log = logging.getLogger(__name__)


class NotAcknowledgedError(Exception):
    """The gateway did not take the events now; the same request may be sent again."""


class Sender:
    """Sends events of one source; safe to use from one thread."""

    def __init__(self, gateway: str, api_key: str, stop: threading.Event) -> None:
        self._url = f"{gateway}/api/v1/events"
        self._client = httpx.Client(headers={"X-API-Key": api_key}, timeout=30)
        self._stop = stop

    def send(self, events: Sequence[dict[str, Any]]) -> int:
        """Number of accepted events; 0 when it was told to stop before an answer came."""
        for attempt in Retrying(
            retry=retry_if_exception_type((NotAcknowledgedError, httpx.HTTPError)),
            wait=wait_exponential(multiplier=0.2, max=5),
            stop=lambda _state: self._stop.is_set(),
            sleep=self._pause,
            reraise=True,
        ):
            with attempt:
                answer = self._client.post(self._url, json={"events": list(events)})
                if answer.status_code in (429, 503):
                    raise NotAcknowledgedError(answer.text)
                answer.raise_for_status()
                result = answer.json()
                for error in result["errors"][:3]:
                    log.warning("event rejected: %s", error)
                return int(result["accepted"])
        return 0

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()
