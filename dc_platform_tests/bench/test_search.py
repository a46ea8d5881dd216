"""`dcp bench search` on a small silver: what it says, and that index and scan agree."""

from __future__ import annotations

from dc_platform.bench.search import bench_search, kinds


def test_each_kind_of_query_is_timed_and_gives_what_a_scan_gives() -> None:
    said: list[str] = []
    result = bench_search(events=5_000, queries=2, say=said.append)
    assert result["compared_with_scan"] == dict.fromkeys(kinds(2), 2)
    for kind in kinds(2):
        assert 0 < result[f"{kind}_p50_ms"] <= result[f"{kind}_p99_ms"]
        assert result[f"{kind}_duckdb_ms"] > 0
    assert result["build_events_per_second"] > 0
    assert result["index_bytes_per_event"] > 0
    assert len(said) == 3 + len(kinds(2))
