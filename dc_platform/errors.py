"""Errors by what the caller must do about them.

PlatformError
├── RetriableError              try again, the same call may succeed
│   ├── BrokerUnavailableError  Kafka did not answer or did not acknowledge in time
│   ├── CommitConflictError     the table moved since the snapshot that was committed from
│   └── StoreUnavailableError   the lake's storage refused or timed out
├── FencedError                 another writer owns the slot now: stop, lose nothing
├── TopicChangedError           the topic is another one now: begin anew with it
└── FatalError                  a human must change something
    ├── ConfigurationError      a setting or a file is wrong
    └── OffsetsExpiredError     Kafka deleted records that had not landed

Edges (the modules that import Kafka, deltalake, SQLAlchemy) translate their
library's errors into these; nobody above an edge catches a library's error.
A rejected event is not an error: it is a value (`contracts.envelope.Rejected`).
"""


class PlatformError(Exception):
    """Base of every error that the platform raises on purpose."""


class RetriableError(PlatformError):
    """The same call may succeed later."""


class BrokerUnavailableError(RetriableError):
    """Kafka is away, or did not acknowledge in time."""


class CommitConflictError(RetriableError):
    """The table has a newer version than the snapshot that the commit was made from."""


class StoreUnavailableError(RetriableError):
    """The lake's storage refused, timed out or is full."""


class FencedError(PlatformError):
    """A newer writer owns this slot; whatever this one still holds is already landed or will be."""


class TopicChangedError(PlatformError):
    """The topic was deleted and created again, or got more partitions, since it was described."""


class FatalError(PlatformError):
    """Nothing gets better by trying again."""


class ConfigurationError(FatalError):
    """A setting, a file or an argument is wrong; the message says which and what to write."""


class OffsetsExpiredError(FatalError):
    """Kafka's retention passed records that had not landed yet."""
