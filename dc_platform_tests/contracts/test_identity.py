"""Identity rules: functions of what a retry repeats, without collisions between their kinds."""

from __future__ import annotations

import hashlib
import uuid

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.contracts import identity
from dc_platform.contracts.envelope import MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS
from dc_platform_tests.helpers.events import TRAPS, client_ids, texts

SOURCE = "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01"
OTHER = "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a02"
TOPIC = "7f6c2f6e-6b0e-4a9b-8c64-3f1f3a1f6d10"
HOUR = identity.HOUR_MS


@pytest.mark.parametrize(
    "text",
    [
        "0B9D7F1E-3A52-4C55-9C0C-6F2F5F0D9A01",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-FFFF-ffff-FFFF-ffffffffffff",
    ],
)
def test_a_uuid_in_its_usual_form_is_kept_in_lower_case(text: str) -> None:
    assert identity.canonical_uuid(text) == text.lower()
    assert identity.event_id_from_text(SOURCE, text) == (text.lower(), None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "order-17",
        "0b9d7f1e3a524c559c0c6f2f5f0d9a01",
        "{0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01}",
        "urn:uuid:0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01",
        "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01\n",
        " 0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01",
        "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a0g",
        "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a0１",  # a full-width digit
        "0b9d7f1e-3a524-c55-9c0c-6f2f5f0d9a01",
    ],
)
def test_any_other_text_becomes_a_name_based_uuid(text: str) -> None:
    assert identity.canonical_uuid(text) is None
    event_id, kept = identity.event_id_from_text(SOURCE, text)
    assert kept == text
    assert event_id == str(uuid.uuid5(uuid.UUID(SOURCE), text))
    assert uuid.UUID(event_id).version == 5


@given(st.lists(client_ids, min_size=2, max_size=20, unique_by=str.lower))
def test_different_ids_of_a_source_stay_different(ids: list[str]) -> None:
    assert len({identity.event_id_from_text(SOURCE, text)[0] for text in ids}) == len(ids)


@given(client_ids)
def test_the_case_of_a_uuid_is_no_difference_the_case_of_a_text_is(text: str) -> None:
    same = identity.event_id_from_text(SOURCE, text)[0]
    swapped = identity.event_id_from_text(SOURCE, text.swapcase())[0]
    alike = identity.canonical_uuid(text) is not None or text.swapcase() == text
    assert (same == swapped) == alike


def test_the_same_text_of_two_sources_is_two_events() -> None:
    ids = {identity.event_id_from_text(source, "order-17")[0] for source in (SOURCE, OTHER, "x")}
    assert len(ids) == 3


def test_a_source_id_that_is_no_uuid_has_a_namespace_of_its_own() -> None:
    assert identity.source_namespace(SOURCE.upper()) == uuid.UUID(SOURCE)
    assert identity.source_namespace("sensor") != identity.source_namespace("Sensor")
    assert identity.source_namespace("sensor").version == 5


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    st.integers(0, 2000),
    client_ids,
)
def test_a_key_never_gives_the_id_of_a_client_text(key: str, index: int, text: str) -> None:
    from_key = identity.event_id_from_key(SOURCE, key, index)
    assert from_key == identity.event_id_from_key(SOURCE, key, index)
    for guess in (text, key, f"{key}{index}", f"idempotency-key:{key}", str(index)):
        assert identity.event_id_from_text(SOURCE, guess)[0] != from_key
    assert identity.event_id_from_key(OTHER, key, index) != from_key


def test_key_and_index_cannot_be_shifted_into_each_other() -> None:
    pairs = [("k", 1), ("k", 11), ("k1", 1), ("k:1", 1), ("k", 0), ("k/1", 0), ("", 1)]
    ids = {identity.event_id_from_key(SOURCE, key, index) for key, index in pairs}
    assert len(ids) == len(pairs)


def test_an_address_gives_one_id() -> None:
    addresses = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 10), (0, 11, 0), (1, 1, 0)]
    ids = {identity.event_id_from_address(TOPIC, *address) for address in addresses}
    assert len(ids) == len(addresses)
    assert identity.event_id_from_address(OTHER, 0, 0, 0) not in ids


@pytest.mark.parametrize(
    ("timestamp", "hour"),
    [
        (0, 0),
        (HOUR - 1, 0),
        (HOUR, 1),
        (-1, -1),
        (-HOUR, -1),
        (-HOUR - 1, -2),
        (MIN_TIMESTAMP_MS, -17_259_888),
        (MAX_TIMESTAMP_MS, 70_389_527),
    ],
)
def test_the_scope_of_a_timestamp_is_its_hour(timestamp: int, hour: int) -> None:
    assert identity.dedup_scope(SOURCE, TOPIC, timestamp) == hour
    assert -(1 << 31) <= hour < identity.BUCKET_BASE


@given(texts.filter(bool), st.uuids().map(str))
def test_a_bucket_is_the_same_everywhere(source_id: str, event_id: str) -> None:
    scope = identity.dedup_scope(source_id, event_id, None)
    digest = hashlib.md5((source_id + event_id).encode(), usedforsecurity=False).hexdigest()
    assert scope == identity.BUCKET_BASE + int(digest[:2], 16)
    assert identity.BUCKET_BASE <= scope < identity.BUCKET_BASE + identity.BUCKETS <= 1 << 31


def test_duckdb_computes_the_same_bucket() -> None:
    sources = [SOURCE, "x", *TRAPS]
    with duckdb.connect() as connection:
        for source in sources:
            row = connection.execute(
                "select ('0x' || md5(?::varchar || ?::varchar)[1:2])::integer", [source, TOPIC]
            ).fetchone()
            assert row == (identity.bucket(source, TOPIC),)


def test_a_rejected_event_is_the_same_row_when_it_comes_again() -> None:
    row = identity.quarantine_id(SOURCE, "ab" * 32, 3)
    assert row == identity.quarantine_id(SOURCE, "ab" * 32, 3)
    others = [
        identity.quarantine_id(SOURCE, "ab" * 32, 4),
        identity.quarantine_id(SOURCE, "ac" * 32, 3),
        identity.quarantine_id(OTHER, "ab" * 32, 3),
        identity.quarantine_id("", "ab" * 32, 3),
    ]
    assert len({row, *others}) == 5
