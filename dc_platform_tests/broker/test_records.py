"""Records as columns are what they are as records."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.broker.records import Record, Records

headers = st.dictionaries(st.sampled_from("abc"), st.binary(max_size=2), max_size=2)
found = st.lists(
    st.builds(
        Record,
        st.integers(0, 9),
        st.integers(0, 2**40),
        st.integers(-1, 2**41),
        st.just({}) | headers,
        st.binary(max_size=4),
    ),
    max_size=8,
)


@given(found)
def test_columns_hold_the_records(records: list[Record]) -> None:
    columns = Records.of(records)
    assert list(columns) == records
    assert len(columns) == len(records)
    assert [columns[i] for i in range(len(records))] == records
    assert columns.sizes.tolist() == [len(r.value) for r in records]
    assert columns.have_headers == any(r.headers for r in records)
    assert Records.of(columns) is columns


@given(found, st.data())
def test_parts_of_columns_hold_their_records(records: list[Record], data: st.DataObject) -> None:
    columns = Records.of(records)
    first, last = sorted(data.draw(st.integers(0, len(records))) for _ in range(2))
    assert list(columns[first:last]) == records[first:last]
    places = data.draw(st.lists(st.integers(0, len(records) - 1))) if records else []
    assert list(columns.take(np.array(places, np.int64))) == [records[i] for i in places]
    later = columns.with_times(columns.timestamps_ms + 1)
    assert list(later) == [r._replace(timestamp_ms=r.timestamp_ms + 1) for r in records]


@given(st.lists(found, max_size=4))
def test_joined_columns_hold_all_records(parts: list[list[Record]]) -> None:
    joined = Records.joined([Records.of(part) for part in parts])
    assert list(joined) == [record for part in parts for record in part]
