"""Kafka records are blocks: one record holds one event or many. Its headers say what it is.

The gateway writes NDJSON blocks of accepted events, and Arrow blocks of rejected ones, each with a
`dcp-block` header. A record without that header was written by a stranger and is judged when read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from dc_platform.contracts.sampling import Rates, rates_header

NDJSON = "application/x-ndjson"
JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"

CONTENT_TYPE = "content-type"
VERDICT = "dcp-verdict"
TENANT = "dcp-tenant"
SCHEMA_VERSION = "dcp-schema-version"
BLOCK = "dcp-block"
COUNTS = "dcp-counts"
BATCH = "dcp-batch"
JUDGED_BY = "dcp-judged-by"
# Rates of sampling (contracts/sampling.py); only where something is left out.
SAMPLING = "dcp-sampling"

_counts = msgspec.json.Decoder(dict[str, int])

VALID = "valid"
REJECTED = "rejected"
# In bronze alone: the event was deleted, its row only keeps its address.
DELETED = "deleted"
# Accepted, and left out of silver by sampling. No header says so: it follows from the rates.
SAMPLED = "sampled"

DEFAULT_TENANT = "default"
DEFAULT_SCHEMA_VERSION = "1"


class BlockId(NamedTuple):
    """A block's identity: which gateway, which start of it, which block since then."""

    gateway: str
    boot: str
    number: int

    def __str__(self) -> str:
        return f"{self.gateway}/{self.boot}/{self.number}"


def media_type(headers: Mapping[str, bytes]) -> str:
    """The media type that a record names, without parameters; empty when it names none."""
    return headers.get(CONTENT_TYPE, b"").split(b";")[0].strip().decode("latin-1").lower()


def holds_events(headers: Mapping[str, bytes]) -> bool:
    """Whether the headers are those of a gateway's block of accepted events."""
    return _is_block(headers, VALID, NDJSON)


def holds_rejects(headers: Mapping[str, bytes]) -> bool:
    """Whether the headers are those of a gateway's block of rejected events."""
    return _is_block(headers, REJECTED, ARROW)


def version_of(judged_by: str) -> str:
    """The version in `schemaId/version`."""
    return judged_by.rpartition("/")[2]


def counted_events(counts: bytes) -> int | None:
    """The events that a `dcp-counts` header counts; None when it is missing or none."""
    try:
        total = sum(_counts.decode(counts).values())
    except msgspec.DecodeError:
        return None
    return total if 0 <= total < 2**31 else None


def _is_block(headers: Mapping[str, bytes], verdict: str, content_type: str) -> bool:
    return (
        BLOCK in headers
        and headers.get(VERDICT) == verdict.encode()
        and media_type(headers) == content_type
    )


def block_headers(
    block: BlockId,
    *,
    content_type: str,
    verdict: str,
    tenant: str,
    counts: dict[str, int],
    schema_version: str = DEFAULT_SCHEMA_VERSION,
    batch_id: str | None = None,
    judged_by: str | None = None,
    sampling: Rates | None = None,
) -> list[tuple[str, bytes]]:
    """The headers of a gateway's block. `counts` is events per source: the ledger's own count.
    `judged_by` is the schema that rejected all events of the block; an accepted event's line has its
    own.
    """
    if judged_by:
        schema_version = version_of(judged_by)
    headers = [
        (CONTENT_TYPE, content_type.encode()),
        (VERDICT, verdict.encode()),
        (TENANT, tenant.encode()),
        (SCHEMA_VERSION, schema_version.encode()),
        (BLOCK, str(block).encode()),
        (COUNTS, msgspec.json.encode(counts)),
    ]
    if batch_id:
        headers.append((BATCH, batch_id.encode()))
    if judged_by:
        headers.append((JUDGED_BY, judged_by.encode()))
    if sampling:
        headers.append((SAMPLING, rates_header(sampling)))
    return headers
