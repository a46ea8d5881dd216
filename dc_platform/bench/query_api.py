"""`python -m dc_platform.bench.query_api URL TOKEN`: asks serving over HTTP, a kept connection each.

A question is [path, body]. http.client, not httpx, which takes a millisecond of these two cores per
request.
"""

from __future__ import annotations

import http.client
import json
import sys
from typing import Any
from urllib.parse import urlsplit

from dc_platform.bench.query_load import Ask, serve


def main() -> None:
    """Ask the serving process at the URL."""
    url, token = sys.argv[1:]
    at = urlsplit(url)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def connect() -> Ask:
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=300)

        def ask(question: Any) -> list[list[Any]]:
            path, body = question
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
