"""A process that answers light queries, one after the other.

A light query is 2 ms of work, half of it in Python, and DuckDB takes Python's lock again after each of
its steps: with a thread for each of 16 queries that came at once a thread waited 34 times per query,
and a fifth of two processors was idle. Here nobody waits for a lock.

Serving tells each view and then each query; an answer is a letter, three figures of the cache and the
JSON. Whatever is not light, or fails, serving answers itself: so there is one place where errors come
from. Nothing that comes from here is unpickled.
"""

from __future__ import annotations

import gc
import logging
import struct
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import msgspec

from dc_platform.lake.store import Lake
from dc_platform.logs import configure_logging
from dc_platform.serving.answers import answer
from dc_platform.serving.forks import settle
from dc_platform.serving.light import HeavyQueryError, Light
from dc_platform.serving.mirror import Change, Receiver
from dc_platform.serving.query import Query
from dc_platform.serving.rows import QueryTimeoutError
from dc_platform.serving.view import View
from dc_platform.settings import Settings

log = logging.getLogger(__name__)

DONE, NOT_LIGHT, TIMED_OUT = b"D", b"N", b"T"
# The kind of an answer, hits and misses of the cache since the start, and the bytes that it takes.
HEAD = struct.Struct("!cQQQ")
_encode = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """A query, as the fields of `Query`."""

    tenant_id: str
    query: dict[str, Any]


def work(connection: Connection, settings: Settings, memory: int) -> None:
    """Answer until the other side closes the connection; `memory`: bytes of this process."""
    settle(memory)
    configure_logging(settings.log_level)
    light = Light(settings, Lake(settings.lake))
    views = Receiver()
    # The code that is loaded is no garbage: to look through it again and again is 2 % of the time.
    gc.freeze()
    # Whoever asks is gone.
    with suppress(EOFError, ConnectionError):
        while True:
            message: Change | Asked = connection.recv()
            if isinstance(message, Change):
                light.follow(views.take(message))
            else:
                assert views.view is not None
                connection.send_bytes(_answer(light, views.view, message))
    light.close()


def _answer(light: Light, view: View, asked: Asked) -> bytes:
    kind, body = NOT_LIGHT, b""
    try:
        query = Query.model_validate(asked.query)
        body = _encode(answer(light, view, query, tenant_id=asked.tenant_id))
        kind = DONE
    except HeavyQueryError:
        pass
    except QueryTimeoutError:
        kind = TIMED_OUT
    except Exception as error:
        log.info("serving answers a query itself after %r", error)
    cache = light.answers
    return HEAD.pack(kind, cache.hits, cache.misses, cache.size_bytes) + body
