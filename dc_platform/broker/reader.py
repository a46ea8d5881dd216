"""Which Kafka client reads. All that read (landing, the tail, the sensor, the benches) ask here."""

from __future__ import annotations

from importlib.util import find_spec

from dc_platform.broker.client import KafkaPythonReader
from dc_platform.broker.records import KafkaClient, RecordReader, TopicInfo
from dc_platform.errors import ConfigurationError

# As many as keep a reader of blocks and one of single events busy: more at once gained nothing.
_MAX_RECORDS = 2_000


def reader_for(
    bootstrap: str,
    info: TopicInfo,
    client: KafkaClient = "auto",
    *,
    max_records: int = _MAX_RECORDS,
) -> RecordReader:
    """A reader of this topic that is connected; a poll gives `max_records` at most.

    `client` is DCP_KAFKA_CLIENT. Raises BrokerUnavailableError, and ConfigurationError when the
    client is not installed.
    """
    installed = find_spec("confluent_kafka") is not None
    if client == "kafka-python" or (client == "auto" and not installed):
        return KafkaPythonReader(bootstrap, info, max_records=max_records)
    if not installed:
        raise ConfigurationError(
            "DCP_KAFKA_CLIENT=librdkafka needs a package that is not installed:"
            " pip install 'dc-platform[librdkafka]', or set DCP_KAFKA_CLIENT=auto"
        )
    # An extra: imported only where it is used.
    from dc_platform.broker.librdkafka import LibrdkafkaReader

    return LibrdkafkaReader(bootstrap, info, max_records=max_records)
