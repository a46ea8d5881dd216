"""`python -m dc_platform.bench.query_api URL TOKEN`: asks serving over HTTP, a kept connection each.

A question is [path, body]. http.client, not httpx, which takes a millisecond of these two cores per
request.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from dc_platform.bench.query_load import Ask, serve

# Serving closes connections that are idle for longer than 75 s.
_IDLE_SECONDS = 30.0


def main() -> None:
    """Ask the serving process at the URL."""
    url, token = sys.argv[1:]
    at = urlsplit(url)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def connect() -> Ask:
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=300)
        asked_at = time.monotonic()

        def ask(question: Any) -> list[list[Any]]:
            nonlocal asked_at
            path, body = question
            if time.monotonic() - asked_at > _IDLE_SECONDS:
                # Others had their turn; the next request opens it again.
                connection.close()
            asked_at = time.monotonic()
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise OSError(f"{path}: {answer.status} {content[:500]!r}")
            found = json.loads(content)
            rows = found["results"] if isinstance(found, dict) else found
            return [list(row.values()) for row in rows]

        return ask

    serve(connect)


if __name__ == "__main__":
    main()
