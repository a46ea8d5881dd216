"""POST /api/v1/search: full text over the union, each event once.

What the index covers is found in the index; what silver has besides, and the tail, is looked through by
the same words. An event is shown as silver has it at the view's version: rows that were deleted since
the index was built are neither counted nor shown.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import logging
import time
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dc_platform.contracts.fields import QueryError
from dc_platform.lake.store import Lake
from dc_platform.search.analysis import Analyzer, identity_of
from dc_platform.search.index import After, Hit, Wanted
from dc_platform.search.language import parse
from dc_platform.search.scan import condition
from dc_platform.serving.answers import events_of
from dc_platform.serving.conditions import microseconds
from dc_platform.serving.engine import Engine
from dc_platform.serving.fresh import Beside, Fresh
from dc_platform.serving.highlights import highlights
from dc_platform.serving.hit_rows import HitRows
from dc_platform.serving.query import EVENT_COLUMNS, whole
from dc_platform.serving.search_index import SearchIndex, Seen
from dc_platform.serving.view import View
from dc_platform.settings import Settings

log = logging.getLogger(__name__)

_ADDRESS = ("kafka_partition", "kafka_offset", "kafka_index")
_HIT = f"event_time, identity, {', '.join(_ADDRESS)}, -1 - part, source_id"
# What is read of an event.
_NAMES = [*EVENT_COLUMNS.split(", "), "tenant_id", *_ADDRESS]
Key = tuple[int, int, int, int]
Some = Annotated[str | Annotated[list[str], Field(max_length=1000)] | None, AfterValidator(whole)]


class SearchRequest(BaseModel):
    """The body of POST /search; the time range is [from, to)."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    query: str = Field(min_length=1, max_length=10_000)
    from_: int | float | str | None = Field(default=None, alias="from")
    to: int | float | str | None = None
    source_id: Some = Field(default=None, alias="sourceId")
    event_type: Some = Field(default=None, alias="eventType")
    limit: int = Field(default=20, ge=1, le=100)
    cursor: str | None = Field(default=None, max_length=200)


class Search:
    """Searches views of the union. Thread-safe."""

    def __init__(self, settings: Settings, lake: Lake, engine: Engine) -> None:
        self._engine = engine
        self._rows = HitRows(
            lake, threads=settings.query_threads, seconds=settings.query_timeout_seconds
        )
        self._analyzer = Analyzer()
        self._index = SearchIndex(settings, lake)
        self._fresh = Fresh(lake, self._analyzer, rows=settings.search_fresh_rows)

    def close(self) -> None:
        """End its threads."""
        self._rows.close()

    def answer(self, view: View, request: SearchRequest, *, tenant_id: str) -> dict[str, Any]:
        """Events that match, newest first, with `highlights`; how many there are, and where the next
        page begins.
        """
        begun = time.perf_counter()
        wanted = Wanted(
            parse(request.query, self._analyzer.of_texts),
            tenant_id,
            _listed(request.source_id),
            _listed(request.event_type),
            microseconds("from", request.from_),
            microseconds("to", request.to),
        )
        after = _read_cursor(request.cursor)
        seen = self._index.beside(view.silver)
        beside = self._fresh.beside(view, seen.coverage.missing, seen.rows_of)
        total, hits = self._find(wanted, seen, beside, after, request.limit + 1)
        page = hits[: request.limit]
        results = self._read(view, wanted, page, seen, beside)
        answer = {
            "results": results,
            "totalCount": total,
            "executionTime": round((time.perf_counter() - begun) * 1000),
            "complete": view.complete and not beside.left_out,
        }
        if not view.complete:
            answer["completeUpTo"] = view.up_to_ms
        if beside.left_out:
            answer["notSearched"] = beside.left_out
        if len(hits) > request.limit:
            answer["nextCursor"] = _cursor(page[-1])
        return answer

    def _find(
        self, wanted: Wanted, seen: Seen, beside: Beside, after: After | None, limit: int
    ) -> tuple[int, list[Hit]]:
        """The first hits of index and scan together. Of those of the scan `piece` is below 0."""
        total, scanned = self._scan(wanted, beside, after, limit)
        indexed: list[Hit] = []
        if seen.moment is not None:
            count, indexed = seen.moment.search(
                wanted, without=seen.coverage.gone, after=after, limit=limit
            )
            total += count
        merged = heapq.merge(scanned, indexed, key=lambda hit: (-hit.time, hit.identity))
        return total, list(merged)[:limit]

    def _scan(
        self, wanted: Wanted, beside: Beside, after: After | None, limit: int
    ) -> tuple[int, list[Hit]]:
        if beside.table is None:
            return 0, []
        parameters: dict[str, Any] = {}
        where = where_of(wanted, parameters)
        with self._engine.run_own(
            f"select count(*) from beside where {where}", parameters, beside=beside.table
        ) as cursor:
            row = cursor.fetchone()
            count = int(row[0]) if row else 0
            if not count:
                return 0, []
            if after is not None:
                where += (
                    f" and (event_time < {after.time}"
                    f" or event_time = {after.time} and identity > {after.identity})"
                )
            found = cursor.execute(
                f"select {_HIT} from beside where {where}"
                f" order by event_time desc, identity limit {limit}",
                parameters,
            ).fetchall()
        return count, [Hit._make(row) for row in found]

    # --- the events themselves ---

    def _read(
        self, view: View, wanted: Wanted, page: Sequence[Hit], seen: Seen, beside: Beside
    ) -> list[dict[str, Any]]:
        if not page:
            return []
        events = self._events(view, wanted.tenant_id, page, seen, beside)
        rows = [events[hit[1:5]] for hit in page if hit[1:5] in events]
        if len(rows) < len(page):
            log.warning("the search index has %d events that silver has not", len(page) - len(rows))
        marked = highlights(rows, wanted.tree, self._analyzer)
        return [
            {**event, "highlights": found}
            for event, found in zip(events_of(rows), marked, strict=True)
        ]

    def _events(
        self, view: View, tenant_id: str, page: Sequence[Hit], seen: Seen, beside: Beside
    ) -> dict[Key, dict[str, Any]]:
        """The tenant's events at the places of hits, and others."""
        by_file: dict[str, list[Hit]] = {}
        homes = [_home(hit, seen, beside) for hit in page]
        for home, hit in zip(homes, page, strict=True):
            if home is not None:
                by_file.setdefault(home, []).append(hit)
        rows = self._rows.read(by_file, _NAMES).select(_NAMES).to_pylist()
        if None in homes:
            rows += self._tail_rows(view, page)
        return {
            (identity_of(row["source_id"], row["event_id"]), *(row[name] for name in _ADDRESS)): row
            for row in rows
            if row["tenant_id"] == tenant_id
        }

    def _tail_rows(self, view: View, page: Sequence[Hit]) -> list[dict[str, Any]]:
        times = ", ".join(f"make_timestamptz({t})" for t in {hit.time for hit in page})
        offsets = ", ".join(str(o) for o in {hit.kafka_offset for hit in page})
        sql = (
            f"select {', '.join(_NAMES)} from ({' union all '.join(view.tail_sqls())})"
            f" where event_time in ({times}) and kafka_offset in ({offsets})"
        )
        with self._engine.run_own(sql, {}, tail=view.tail) as cursor:
            rows: list[dict[str, Any]] = cursor.to_arrow_table().to_pylist()
        return rows


def _home(hit: Hit, seen: Seen, beside: Beside) -> str | None:
    if hit.piece < 0:
        return beside.homes[-1 - hit.piece]
    return seen.coverage.home_of(hit.piece)


def where_of(wanted: Wanted, parameters: dict[str, Any]) -> str:
    """The condition of SQL over rows of `Analyzer.searchable`; its values go into `parameters`."""
    parameters["tenant"] = wanted.tenant_id
    parts = ["tenant_id = $tenant", condition(wanted.tree, parameters)]
    for column, values in (("source_id", wanted.sources), ("event_type", wanted.types)):
        if values is not None:
            parameters[column] = list(values)
            parts.append(f"list_contains(${column}::varchar[], {column})")
    if wanted.from_us is not None:
        parts.append(f"event_time >= {wanted.from_us}")
    if wanted.to_us is not None:
        parts.append(f"event_time < {wanted.to_us}")
    return " and ".join(parts)


def _listed(value: str | list[str] | None) -> list[str] | None:
    return [value] if isinstance(value, str) else value


def _cursor(last: Hit) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([last.time, last.identity])).decode()


def _read_cursor(text: str | None) -> After | None:
    if text is None:
        return None
    try:
        at = msgspec.json.decode(base64.urlsafe_b64decode(text.encode()), type=tuple[int, int])
        if not (abs(at[0]) < 2**62 and 0 <= at[1] < 2**64):
            raise ValueError
    except (ValueError, binascii.Error):
        raise QueryError("cursor: not one that an answer gave; begin without a cursor") from None
    return After(*at)
