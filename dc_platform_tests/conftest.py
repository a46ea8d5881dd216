"""Fixtures and settings of all tests. Helpers that are no fixtures stand in `helpers/`."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

# Every run tries the same examples; `pytest --hypothesis-profile search` looks for new ones.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=_SLOW,
)
settings.register_profile("search", deadline=None, max_examples=2000, suppress_health_check=_SLOW)
settings.load_profile("steady")
