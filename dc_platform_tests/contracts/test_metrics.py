"""Which definitions of metrics make sense."""

from __future__ import annotations

from typing import Any

import pytest

from dc_platform.contracts.metrics import AggregationType, Definition, MetricError


def define(**members: Any) -> Definition:
    given = {"name": "m", "aggregation_type": AggregationType.SUM, "field": "a.b[0]", **members}
    return Definition(**given)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"name": ""}, "name: letters"),
        ({"name": "1st"}, "name: letters"),
        ({"name": "a-b"}, "name: letters"),
        ({"name": "a\n"}, "name: letters"),
        ({"name": "x" * 129}, "name: letters"),
        ({"field": None}, "field: SUM needs one"),
        ({"field": ""}, "field: 1 to 512"),
        ({"field": "x" * 513}, "field: 1 to 512"),
        ({"field": "a'b"}, "field: field"),
        ({"field": "payload"}, "field: name what is in payload"),
        ({"event_type": ""}, "eventType: 1 to 256"),
        ({"event_type": "x" * 257}, "eventType: 1 to 256"),
        ({"dimensions": ("a", "a")}, "dimensions: each once"),
        ({"dimensions": ("a..b",)}, "dimensions: field"),
        ({"dimensions": ("metadata.tags",)}, "dimensions: name what is in metadata.tags"),
        ({"dimensions": ("timestamp",)}, "dimensions: timestamp is a time"),
        ({"dimensions": tuple(f"d{n}" for n in range(17))}, "dimensions: at most 16"),
    ],
)
def test_what_makes_no_sense_is_named(members: dict[str, Any], words: str) -> None:
    with pytest.raises(MetricError) as refused:
        define(**members)
    assert str(refused.value).startswith(words)


def test_what_makes_sense() -> None:
    define(dimensions=("country", "metadata.tags.region", "eventType", "sourceId"))
    define(field="timestamp", aggregation_type=AggregationType.MAX)
    define(field=None, aggregation_type=AggregationType.COUNT)
    define(field="user id", aggregation_type=AggregationType.UNIQUE, event_type="'; drop --")
