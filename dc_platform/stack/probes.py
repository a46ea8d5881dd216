"""Questions that tell whether a part does its work. None waits longer than a few seconds."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing

from dc_platform.broker.client import cluster_id
from dc_platform.errors import PlatformError

_SECONDS = 3.0


def port_answers(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=_SECONDS):
            return True
    except OSError:
        return False


def kafka_answers(bootstrap: str) -> bool:
    """Whether the broker knows its cluster."""
    host, _, port = bootstrap.rpartition(":")
    # The client would try for seconds what the port refuses at once.
    if not port_answers(host, int(port)):
        return False
    try:
        return bool(cluster_id(bootstrap))
    except PlatformError:
        return False


def http_answers(host: str, port: int, path: str, **expected: object) -> bool:
    """Whether GET gives 200, and in its JSON the expected values."""
    try:
        with closing(http.client.HTTPConnection(host, port, timeout=_SECONDS)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        if response.status != 200:
            return False
        return not expected or expected.items() <= json.loads(body).items()
    except (OSError, http.client.HTTPException, ValueError):
        return False
