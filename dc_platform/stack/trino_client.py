"""Statements for a Trino over HTTP, for those who run one: the supervisor, `dcp trino`, tests."""

from __future__ import annotations

from typing import Any

import httpx
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_fixed

from dc_platform.errors import FatalError

# A Trino that has just started, or was starved, has no worker for some seconds.
_NO_WORKER = "Trino: NO_NODES_AVAILABLE"
_WORKER_SECONDS = 30.0


class TrinoClient:
    """A Trino at a base URL, asked as user `dcp`."""

    def __init__(self, url: str) -> None:
        self.url = url

    @retry(
        retry=retry_if_exception_message(match=_NO_WORKER),
        wait=wait_fixed(0.5),
        stop=stop_after_delay(_WORKER_SECONDS),
        reraise=True,
    )
    def query(self, sql: str) -> list[list[Any]]:
        """All rows of a statement; waits for a Trino that has no worker yet.

        Raises FatalError with Trino's reason, httpx.HTTPError when it does not answer.
        """
        return self.query_once(sql)

    def query_once(self, sql: str) -> list[list[Any]]:
        """All rows of a statement, or the reason at once."""
        rows: list[list[Any]] = []
        with httpx.Client(timeout=60.0, headers={"X-Trino-User": "dcp"}) as client:
            answer = client.post(f"{self.url}/v1/statement", content=sql).raise_for_status().json()
            while True:
                if "error" in answer:
                    error = answer["error"]
                    raise FatalError(f"Trino: {error.get('errorName')}: {error.get('message')}")
                rows += answer.get("data") or []
                if "nextUri" not in answer:
                    return rows
                answer = client.get(answer["nextUri"]).raise_for_status().json()
