"""Search while events arrive, land, are merged and are indexed, on a real broker: each once, always."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import pytest

from dc_platform.search.build import Builder
from dc_platform.serving.search import SearchRequest
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.helpers.tail import Tailed, repeated

pytestmark = pytest.mark.kafka
# The type of all of the tail's events.
ALL = SearchRequest(query="t", limit=100)


class Found(NamedTuple):
    """What one search saw: how many match, and the ids that it showed."""

    total: int
    ids: tuple[str, ...]


def search(tail: Tailed) -> Found:
    assert tail.tail.view is not None
    answer = tail.search.answer(tail.tail.view, ALL, tenant_id="default")
    return Found(answer["totalCount"], tuple(r["eventId"] for r in answer["results"]))


def test_each_event_is_found_once_at_every_moment(tailed: Callable[..., Tailed]) -> None:
    tail = tailed()
    tail.start()
    with repeated(lambda: search(tail)) as found:
        for start in range(0, 60, 10):
            tail.write(*range(start, start + 10), partition=start // 10 % 2)
            tail.wait_count(start + 10)
            # What a query sees a search finds: there is no second view.
            assert search(tail).total == start + 10
            if start % 20:
                tail.land()
                tail.write(*range(start, start + 5), partition=1)
            if start % 30 == 20:
                Builder(tail.settings).build()
        tail.land()
        Builder(tail.settings).build()
        last = search(tail)
    assert set(last.ids) == {some_uuid(n) for n in range(60)}
    assert last.total == 60
    assert all(len(one.ids) == len(set(one.ids)) == one.total for one in found)
    assert all(set(before.ids) <= set(after.ids) for before, after in pairwise(found))
