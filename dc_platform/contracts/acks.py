"""What Kafka acknowledged, block by block, in the gateway's own words. Pure.

One line of JSON per block. The gateway writes it before it answers, and it travels through a topic of
its own, so the loss of a block can be named by source and hour without asking landing. A line stands
for itself: it names the block, so it counts once however often it arrives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from dc_platform.contracts.identity import HOUR_MS

# Events by source and epoch hour of receipt.
Counts = Mapping[tuple[str, int], int]


class Count(msgspec.Struct, array_like=True, frozen=True):
    """Events of one source that the gateway received within one epoch hour."""

    source_id: str
    hour: int
    events: int


class Ack(msgspec.Struct, frozen=True):
    """One block that Kafka has. `at_ms` is the gateway's clock, `topic_id` empty when unknown."""

    block: str
    tenant: str
    topic_id: str
    partition: int
    offset: int
    verdict: str
    at_ms: int
    counts: list[Count]


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Ack)


def hour_of(received_ms: int) -> int:
    """The epoch hour of a time."""
    return received_ms // HOUR_MS


def ack_line(ack: Ack) -> bytes:
    """The line, with its line break."""
    return _encode(ack) + b"\n"


def read_acks(values: Iterable[bytes]) -> Iterator[Ack | None]:
    """The acks of records of the acks topic; None for a line that is none, such as one cut off."""
    for value in values:
        for line in value.split(b"\n"):
            if not line.strip():
                continue
            try:
                yield _decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                yield None
