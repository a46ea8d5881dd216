"""What goes over the wire beside the lines: block headers, blocks of rejects, and the tables."""

from __future__ import annotations

import hashlib
import json

import pyarrow as pa
import pytest

from dc_platform.contracts import blocks
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.rejects import REJECTS, Reject, encode_rejects
from dc_platform.contracts.tables import JUDGED, TABLES, TableSpec, column_doc


def test_the_headers_name_the_block_and_count_its_events() -> None:
    headers = blocks.block_headers(
        blocks.BlockId("gateway-1", "b00t", 7),
        content_type=blocks.NDJSON,
        verdict=blocks.VALID,
        tenant="default",
        counts={"a": 2, "b,:{}": 1},
    )
    assert [name for name, _ in headers] == [
        "content-type",
        "dcp-verdict",
        "dcp-tenant",
        "dcp-schema-version",
        "dcp-block",
        "dcp-counts",
    ]
    values = dict(headers)
    assert values["dcp-block"] == b"gateway-1/b00t/7"
    assert json.loads(values["dcp-counts"]) == {"a": 2, "b,:{}": 1}


def test_a_batch_id_is_a_header_of_its_own() -> None:
    headers = blocks.block_headers(
        blocks.BlockId("g", "b", 1),
        content_type=blocks.NDJSON,
        verdict=blocks.VALID,
        tenant="default",
        counts={},
        batch_id="batch-1",
    )
    assert headers[-1] == ("dcp-batch", b"batch-1")


def test_rejected_bytes_travel_unchanged() -> None:
    raw = bytes(range(256))
    rejects = [
        Reject.of(0, Reason.NOT_UTF8, "not UTF-8", raw),
        Reject(4, Reason.BODY_TOO_LARGE, "too much", b"begin", 10**12, "ab" * 32),
        Reject.of(2, Reason.MALFORMED_JSON, "empty", b""),
    ]
    value = encode_rejects(rejects, source_id="s", request_hash="h", received_at_ms=1_234)
    table = pa.ipc.open_stream(value).read_all()
    assert table.schema == REJECTS
    assert table["raw"].to_pylist() == [raw, b"begin", b""]
    assert table["raw_length"].to_pylist() == [256, 10**12, 0]
    assert table["raw_sha256"][0].as_py() == hashlib.sha256(raw).hexdigest()
    assert table["request_index"].to_pylist() == [0, 4, 2]
    assert table["reason"].to_pylist() == ["not_utf8", "body_too_large", "malformed_json"]
    assert {at.timestamp() for at in table["received_at"].to_pylist()} == {1.234}


@pytest.mark.parametrize("spec", TABLES, ids=lambda spec: spec.name)
def test_every_column_is_described_and_comes_from_somewhere(spec: TableSpec) -> None:
    made_by_landing = {"processed_at", "ingest_date", "next_offset", "silver_version"}
    made_by_landing |= {"from_offset", "to_offset", "why"}
    of_the_ledger = {"hour", "hour_date", "acked_at", "events", "examples"}
    of_the_ledger |= {"received", "landed", "duplicates", "rejected", "sampled_out", "deleted"}
    of_the_ledger |= {"gap", "in_flight", "in_flight_since", "missing"}
    of_replays = {"quarantine_date", "event_index", "result", "reason_now", "replayed_at", "run"}
    of_deletions = {"deletion_id", "kind", "who", "predicate", "table_name", "rows", "files"}
    of_deletions |= {"bytes", "table_version", "requested_at", "vacuumed_at", "proof"}
    of_deletions |= {"cause", "deleted_at"}
    for field in spec.columns:
        assert column_doc(spec, field.name)
        others = made_by_landing | of_the_ledger | of_replays | of_deletions
        if field.name not in others and spec.layer != "gold":
            assert JUDGED.field(field.name).type == field.type
    assert set(spec.statistics) <= set(spec.file_schema.names)
    assert (spec.partition_by or "") not in spec.file_schema.names
