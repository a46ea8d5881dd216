"""The words of an identity against what Python's own UUIDs say."""

from __future__ import annotations

import uuid

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.landing import keys


@given(st.lists(st.uuids(), min_size=1, max_size=20), st.integers(0, 3))
def test_the_words_are_the_octets_of_the_uuid(found: list[uuid.UUID], skipped: int) -> None:
    texts = [str(uuid.UUID(int=skipped))] * skipped + [str(one) for one in found]
    words = keys._uuid_words(pa.array(texts, pa.string())[skipped:])
    assert [row.tobytes() for row in words] == [one.bytes for one in found]


def test_there_may_be_more_than_fit_into_a_piece() -> None:
    found = [uuid.UUID(int=number * 0x1234_5678_9ABC_DEF0_1234_5679) for number in range(20_000)]
    words = keys._uuid_words(pa.array([str(one) for one in found]))
    assert words.tobytes() == b"".join(one.bytes for one in found)
