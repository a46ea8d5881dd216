"""Sampling (design 6.4): which events of a source are kept, by their id and a rate in the header.

An event is kept when the first 32 bits of the MD5 of its id (the first eight hexadecimal digits, as a
number) are below rate × 2^32. Nothing else counts: not the time, not who asks, not what else came. So a
retry gets the same decision at the same rate, what is kept at a rate is kept at each higher one, and
anybody can tell for any id:

    Python   int(hashlib.md5(event_id.encode()).hexdigest()[:8], 16) < rate * 2**32
    DuckDB   ('0x' || md5(event_id)[1:8])::ubigint < rate * 4294967296
    Trino    from_base(substr(to_hex(md5(to_utf8(event_id))), 1, 8), 16) < rate * 4294967296e0
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

# Source → event type ("" for all others) → share that is kept. What is not named is kept.
Rates = Mapping[str, Mapping[str, float]]
OTHERS = ""
SCALE = 1 << 32

_Rate = Annotated[float, Meta(gt=0, le=1)]
_decoder = msgspec.json.Decoder(dict[str, dict[str, _Rate]])
_encode = msgspec.json.Encoder().encode


def number_of(event_id: str) -> int:
    """What an id is compared by, of 0 to 2^32 - 1."""
    return int(hashlib.md5(event_id.encode(), usedforsecurity=False).hexdigest()[:8], 16)


def is_kept(event_id: str, rate: float) -> bool:
    """Whether sampling at `rate` keeps the event."""
    return number_of(event_id) < rate * SCALE


def rate_of(rates: Rates, source_id: str, event_type: str) -> float:
    """The rate of an event."""
    of_source = rates.get(source_id, {})
    return of_source.get(event_type, of_source.get(OTHERS, 1.0))


def rates_header(rates: Rates) -> bytes:
    """The value of the header."""
    return _encode(rates)


def read_rates(header: bytes) -> Rates:
    """The rates of a header; none when it is not one as a gateway writes them: then all is kept."""
    try:
        return _decoder.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
