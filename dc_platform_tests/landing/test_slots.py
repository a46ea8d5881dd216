"""Slots share the partitions: each has its own, and keeps them when more are added."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.errors import ConfigurationError
from dc_platform.landing.slots import Slot


@given(st.integers(1, 8), st.integers(1, 40), st.integers(0, 20))
def test_each_partition_has_one_slot_and_keeps_it(of: int, partitions: int, added: int) -> None:
    slots = [Slot(number, of) for number in range(min(of, partitions))]
    shares = [slot.partitions(partitions) for slot in slots]
    assert sorted(p for share in shares for p in share) == list(range(partitions))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for slot, share in zip(slots, shares, strict=True):
        assert [p for p in slot.partitions(partitions + added) if p < partitions] == share


def test_one_slot_has_all() -> None:
    assert Slot().partitions(3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("slot", "says"), [(Slot(4, 8), "set DCP_LANDING_SLOTS to 4"), (Slot(2, 2), "the first is 0")]
)
def test_a_slot_without_partitions_says_what_to_do(slot: Slot, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        slot.partitions(4)
