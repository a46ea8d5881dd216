"""Reading Kafka with librdkafka (confluent-kafka): a sixth of kafka-python's CPU time per record.

librdkafka fetches ahead in threads of its own, by topic id. The id that it fetches by is not to be
seen, and when a topic is created again it goes on in the new one at the old offset. It takes another
id only from the broker's metadata, and says on its log when it got some; so before records that came
after that are given out, the broker is asked for the topic's id.
"""

from __future__ import annotations

import logging
import struct
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any

import numpy as np
from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec, TopicDescription

from dc_platform.broker.garbage import garbage_left
from dc_platform.broker.records import (
    MAX_RECORD_BYTES,
    NO_HEADERS,
    Poll,
    Records,
    TopicInfo,
    check_topic,
)
from dc_platform.errors import (
    BrokerUnavailableError,
    OffsetsExpiredError,
    PlatformError,
    TopicChangedError,
)

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
# How soon more partitions are noticed.
_DESCRIBE_SECONDS = 3.0
# So many at once keep the client's messages in the processor's cache: 20,000 took half as long again.
_AT_ONCE = 500
_MIB = 2**20
# While a poll takes blocks of 300 KB, librdkafka fetches more of them: 2,000 made 640 MB at once.
_POLL_BYTES = 8 * _MIB

_READING: dict[str, Any] = {
    "client.id": "dcp-reader",
    # It has to have a name, but is never joined.
    "group.id": "dcp-reader",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    # The only word on where a partition stands when it ends with a marker of a transaction.
    "enable.partition.eof": True,
    "check.crcs": True,
    "fetch.wait.max.ms": 100,
    # What is fetched ahead: 16 MiB of records, and what one answer unpacks to (3 MiB of JSON in
    # lz4; 48 times the answer makes 64 MiB together). A record larger than an answer comes alone.
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 16 * 1024,
    "fetch.max.bytes": _MIB,
    "fetch.message.max.bytes": _MIB // 2,
    "receive.message.max.bytes": 8 * MAX_RECORD_BYTES,
    # With a full queue, 0 keeps a core busy with asking whether it is still full, and the default
    # of 1,000 stalls a reader that is fast.
    "fetch.queue.backoff.ms": 5,
    # Metadata is all that it shall talk about (see above).
    "debug": "metadata",
}
_CONNECTING: dict[str, Any] = {
    "reconnect.backoff.max.ms": 1000,
    "log.connection.close": False,
    "allow.auto.create.topics": False,
}
_GONE = {
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError._LOG_TRUNCATION,
    KafkaError.OFFSET_OUT_OF_RANGE,
}

# A batch whose checksum fails, or that cannot be unpacked: damaged on the broker's own disk.
_DAMAGED = {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION}
# How soon it is asked for again: another replica may have it whole, or a person has deleted it.
_DAMAGED_SECONDS = 10.0

_timestamp_ms: Callable[[tuple[int, int]], int] = itemgetter(1)


class _TopicWatch:
    """Asks the broker now and then whether the topic is still the same."""

    def __init__(self, admin: AdminClient, info: TopicInfo) -> None:
        self._admin = admin
        self._info = info
        self._answer: Future[TopicDescription] | None = None
        self._ask_at = 0.0
        # Whether librdkafka may have taken another topic for ours since the broker was asked.
        self.doubt = True

    def check(self, wait_seconds: float) -> None:
        """Raises TopicChangedError. With no time to wait, an answer may be left to the next check;
        otherwise there is one that is no older than the last doubt, or a KafkaException.
        """
        while self._answer or self.doubt or time.monotonic() >= self._ask_at:
            asked_before = self._answer is not None
            if self._answer is None:
                self._answer = self._ask(wait_seconds or _CONNECT_SECONDS)
            if not wait_seconds and not self._answer.done():
                return
            answer, self._answer = self._answer, None
            try:
                self._compare(answer.result())
            except TopicChangedError:
                self.doubt = True
                raise
            except KafkaException:
                self.doubt = True
                if not wait_seconds:
                    return
                # One that was asked before may have been asked of a broker that is back by now.
                if not asked_before:
                    raise

    def _ask(self, seconds: float) -> Future[TopicDescription]:
        self.doubt = False
        self._ask_at = time.monotonic() + _DESCRIBE_SECONDS
        name = self._info.name
        asked = self._admin.describe_topics(TopicCollection([name]), request_timeout=seconds)
        answer: Future[TopicDescription] = asked[name]
        return answer

    def _compare(self, found: TopicDescription) -> None:
        high, low = (
            found.topic_id.get_most_significant_bits(),
            found.topic_id.get_least_significant_bits(),
        )
        topic_id = str(uuid.UUID(bytes=struct.pack(">qq", high, low)))
        check_topic(self._info, topic_id, len(found.partitions))


class _Log:
    """Takes what librdkafka logs: doubts the topic after metadata, keeps the last complaint."""

    def __init__(self, watch: _TopicWatch) -> None:
        self._watch = watch
        self.complaint = "no answer"

    def log(self, level: int, form: str, facility: str, name: str, text: str) -> None:
        """As of `logging.Logger`. Called within `consume`, before it gives records that came later."""
        if facility == "METADATA":
            self._watch.doubt = True
        elif level >= logging.WARNING:
            self.complaint = text

    def error(self, error: KafkaError) -> None:
        """Of a connection, which librdkafka makes anew by itself."""
        self.complaint = error.str()


class LibrdkafkaReader:
    """A `RecordReader`."""

    def __init__(self, bootstrap: str, info: TopicInfo, *, max_records: int = 2_000) -> None:
        self.info = info
        self._bootstrap = bootstrap
        self._max_records = max_records
        self._positions: dict[int, int] = {}
        self._failed: PlatformError | None = None
        # Partitions that are not read now → when they are again, of the monotonic clock.
        self._damaged: dict[int, float] = {}
        servers = {**_CONNECTING, "bootstrap.servers": bootstrap}
        self._admin = AdminClient({**servers, "log_level": 0})
        self._watch = _TopicWatch(self._admin, info)
        self._log = _Log(self._watch)
        with self._translated("connect"):
            self._watch.check(_CONNECT_SECONDS)
            self._consumer = Consumer(
                {**servers, **_READING, "error_cb": self._log.error}, logger=self._log
            )

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except (KafkaException, TimeoutError) as error:
            raise BrokerUnavailableError(
                f"{what}: Kafka at {self._bootstrap} failed ({error or self._log.complaint});"
                " is the broker up? (dcp status)"
            ) from error

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read from these offsets on, partition → next offset."""
        self._positions, self._failed = dict(offsets), None
        self._damaged.clear()
        with self._translated("assign"):
            self._consumer.assign(
                [TopicPartition(self.info.name, number, at) for number, at in offsets.items()]
            )

    def poll(self, timeout_ms: int) -> Poll:
        """The records that arrive within `timeout_ms`; returns as soon as there are any."""
        try:
            poll = Poll((), {})
            with self._translated("poll"):
                self._read_damaged_again()
                if self._failed is None:
                    poll = self._consume(timeout_ms / 1000)
                # An offset may be out of range because it is another topic's.
                sure = bool(poll.records) or self._failed is not None
                self._watch.check(_CONNECT_SECONDS if sure else 0)
            if self._failed is not None and not poll.records:
                raise self._failed
        except PlatformError:
            # What was consumed is not given out: the next poll reads it again.
            self.assign(self._positions)
            raise
        self._positions.update(poll.next_offsets)
        return poll

    def _consume(self, seconds: float) -> Poll:
        parts: list[Records] = []
        ends: dict[int, int] = {}
        deadline = time.monotonic() + seconds
        while seconds >= 0 and not parts and self._failed is None:
            # `consume` waits until it has as many as it was asked for.
            messages = self._consumer.consume(1, seconds)
            with garbage_left:
                size, room = 0, self._max_records
                while messages:
                    records = self._take(messages, ends)
                    if len(records):
                        parts.append(records)
                        size += int(records.sizes.sum())
                        room -= len(records)
                    if room <= 0 or size >= _POLL_BYTES or self._failed is not None:
                        break
                    messages = self._consumer.consume(min(room, _AT_ONCE), 0)
            seconds = deadline - time.monotonic()
        return Poll(Records.joined(parts), ends)

    def _take(self, messages: list[Message], ends: dict[int, int]) -> Records:
        """The records among the messages; `ends` is moved behind each partition's last."""
        if self._damaged or any(map(Message.error, messages)):
            messages = self._take_events(messages, ends)
        size = len(messages)
        partitions = list(map(Message.partition, messages))
        offsets = list(map(Message.offset, messages))
        for partition, last in dict(zip(partitions, offsets, strict=True)).items():
            ends[partition] = max(ends.get(partition, 0), last + 1)
        times = map(_timestamp_ms, map(Message.timestamp, messages))
        return Records(
            np.array(partitions, np.int64),
            np.array(offsets, np.int64),
            np.fromiter(times, np.int64, size),
            _headers(messages),
            [value or b"" for value in map(Message.value, messages)],
        )

    def _take_events(self, messages: list[Message], ends: dict[int, int]) -> list[Message]:
        """Note ends of partitions; gives the records, as far as the first error."""
        records = []
        reached = {**self._positions, **ends}
        for message in messages:
            error, partition, offset = message.error(), message.partition(), message.offset()
            if partition in self._damaged:
                # The client goes on behind what it could not read.
                continue
            if error is None:
                records.append(message)
                reached[partition] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                ends[partition] = max(ends.get(partition, 0), offset)
            elif partition is None or partition < 0:
                # Of a connection, or of the group that nobody joins: reading goes on.
                self._log.complaint = error.str()
            elif error.code() in _DAMAGED:
                self._set_aside(partition, reached.get(partition, offset), error)
            elif error.code() in _GONE and 0 <= offset < reached.get(partition, 0):
                # Of an assignment before this one: it may come when reading stands elsewhere.
                log.debug("partition %d: late answer for offset %d", partition, offset)
            else:
                what = f"poll: partition {partition} of {self.info.name!r}: {error.str()}"
                kind = OffsetsExpiredError if error.code() in _GONE else BrokerUnavailableError
                self._failed = kind(what)
                break
        return records

    def _set_aside(self, partition: int, offset: int, error: KafkaError) -> None:
        """Read the other partitions on: what is damaged stands in the way of its own alone."""
        log.error(
            "partition %d of %s: the records from offset %d on are damaged on the broker's disk (%s);"
            " they are asked for again every %d s, and other partitions go on. When no replica has"
            " them whole: kafka-delete-records up to the offset behind them",
            *(partition, self.info.name, offset, error.str(), _DAMAGED_SECONDS),
        )
        self._damaged[partition] = time.monotonic() + _DAMAGED_SECONDS
        self._consumer.incremental_unassign([TopicPartition(self.info.name, partition)])

    def _read_damaged_again(self) -> None:
        now = time.monotonic()
        due = [partition for partition, at in self._damaged.items() if at <= now]
        for partition in due:
            del self._damaged[partition]
        if due:
            self._consumer.incremental_assign(
                [TopicPartition(self.info.name, p, self._positions[p]) for p in due]
            )

    def positions(self, partitions: Iterable[int]) -> dict[int, int]:
        """Partition → the offset that the next poll reads from."""
        return {number: self._positions[number] for number in partitions}

    def end_offsets(self, timeout_ms: int | None = None) -> dict[int, int]:
        """Partition → the offset after the last committed record, as the broker says now."""
        seconds = _ANSWER_SECONDS if timeout_ms is None else timeout_ms / 1000
        with self._translated("end offsets"):
            ends = self._offsets(OffsetSpec.latest(), seconds)
            self._watch.check(seconds)
        return ends

    def beginning_offsets(self) -> dict[int, int]:
        """Partition → the oldest offset that Kafka still has."""
        with self._translated("beginning offsets"):
            return self._offsets(OffsetSpec.earliest(), _ANSWER_SECONDS)

    def _offsets(self, spec: OffsetSpec, seconds: float) -> dict[int, int]:
        answers = self._admin.list_offsets(
            {TopicPartition(self.info.name, n): spec for n in range(self.info.partitions)},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=seconds,
        )
        return {tp.partition: int(answer.result().offset) for tp, answer in answers.items()}

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()


def _headers(messages: Sequence[Message]) -> list[dict[str, bytes]] | None:
    """Those of each message, or None when there are none at all.

    Of several headers with one name the first counts, as in Trino's view of them.
    """
    found: list[Any] = []
    calls = map(Message.headers, messages)
    while len(found) < len(messages):
        # A name that is no UTF-8: none of this record's headers can be had. Never asked twice: the
        # second answer has a hole in place of the name, and the interpreter dies of it.
        with suppress(SystemError, UnicodeDecodeError):
            found.extend(calls)
            break
        found.append(None)
    if not any(found):
        return None
    return [
        {name: value or b"" for name, value in reversed(pairs)} if pairs else NO_HEADERS
        for pairs in found
    ]
