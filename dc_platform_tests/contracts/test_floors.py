"""Floors: which is in force when, for whom, and that none ever moves back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dc_platform.contracts.floors import EVERY_TYPE, Floor, Floors

FLOORS = st.lists(
    st.builds(
        Floor,
        st.sampled_from(["a", "b"]),
        st.sampled_from([EVERY_TYPE, "x", "y"]),
        st.sampled_from([frozenset[str](), frozenset({"x"})]),
        st.integers(0, 50),
        st.integers(0, 50),
    ).map(lambda f: f if f.data_type == EVERY_TYPE else f._replace(excepted=frozenset())),
    max_size=12,
)


def plainly(floors: list[Floor], tenant: str, event_type: str, at: int) -> int | None:
    return max(
        (
            floor.floor_ms
            for floor in floors
            if floor.tenant_id == tenant
            and floor.from_ms <= at
            and (
                floor.data_type == event_type
                or (floor.data_type == EVERY_TYPE and event_type not in floor.excepted)
            )
        ),
        default=None,
    )


@given(FLOORS, st.sampled_from(["a", "b", "c"]), st.sampled_from("xyz"), st.integers(-1, 51))
def test_the_floor_is_the_highest_that_is_in_force(
    floors: list[Floor], tenant: str, event_type: str, at: int
) -> None:
    known = Floors(floors)
    found = known.of(tenant, event_type, at)
    assert found == plainly(floors, tenant, event_type, at)
    later = known.of(tenant, event_type, at + 7)
    assert found is None or (later is not None and later >= found)
    highest = known.highest(at)
    assert found is None or (highest is not None and highest >= found)
    in_force = Floors(f._replace(from_ms=0) for f in known.in_force(at))
    assert in_force.of(tenant, event_type, 0) == found
