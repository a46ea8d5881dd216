"""The typed reasons for which an event can be rejected.

A reason is part of the API (`errors[].code`), of `silver.quarantine.reason` and of the docs: a name
is never reused for something else. Each has a sentence that says what to do.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why an event, or a whole body, was rejected."""

    MALFORMED_JSON = "malformed_json"
    NOT_UTF8 = "not_utf8"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    VALUE_OUT_OF_RANGE = "value_out_of_range"
    TOO_DEEP = "too_deep"
    EVENT_TOO_LARGE = "event_too_large"
    BODY_TOO_LARGE = "body_too_large"
    BAD_COMPRESSION = "bad_compression"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    UNKNOWN_SOURCE = "unknown_source"
    SOURCE_MISMATCH = "source_mismatch"
    UNSUPPORTED_CONTENT_TYPE = "unsupported_content_type"
    UNDECODABLE_BLOCK = "undecodable_block"
    TOO_OLD = "too_old"
    NOT_IN_ENUM = "not_in_enum"
    PATTERN_MISMATCH = "pattern_mismatch"
    WRONG_LENGTH = "wrong_length"
    DROPPED_BY_RULE = "dropped_by_rule"
    FAILED_BY_RULE = "failed_by_rule"
    SOURCE_FAILED = "source_failed"


REMEDIES: dict[Reason, str] = {
    Reason.MALFORMED_JSON: "Send RFC 8259 JSON: no trailing commas, no NaN, no comments.",
    Reason.NOT_UTF8: "Encode the body as UTF-8.",
    Reason.NOT_AN_OBJECT: "Send each event as a JSON object.",
    Reason.MISSING_FIELD: "Add the field that the message names.",
    Reason.WRONG_TYPE: "Give the field that the message names the type that it names.",
    Reason.VALUE_OUT_OF_RANGE: "Keep the value within the bound that the message names.",
    Reason.TOO_DEEP: "Nest the payload less deeply.",
    Reason.EVENT_TOO_LARGE: "Make the event smaller, or raise DCP_MAX_EVENT_BYTES.",
    Reason.BODY_TOO_LARGE: "Split the body, or raise DCP_MAX_BODY_BYTES.",
    Reason.BAD_COMPRESSION: "Compress the body as its Content-Encoding header says.",
    Reason.TIMESTAMP_IN_FUTURE: "Set the sender's clock, or raise DCP_FUTURE_LIMIT_SECONDS.",
    Reason.UNKNOWN_SOURCE: "Register the source first: dcp source create NAME --type SERVER.",
    Reason.SOURCE_MISMATCH: "Send events with the key of their own source.",
    Reason.UNSUPPORTED_CONTENT_TYPE: (
        "Send application/json, application/x-ndjson or application/vnd.apache.arrow.stream."
    ),
    Reason.UNDECODABLE_BLOCK: "Write an Arrow IPC stream with the columns of docs/api.md.",
    Reason.TOO_OLD: "Send events before the retention policy of their type deletes them.",
    Reason.NOT_IN_ENUM: "Send one of the values that the schema lists for the field.",
    Reason.PATTERN_MISMATCH: "Send a text that the schema's pattern of the field finds.",
    Reason.WRONG_LENGTH: "Keep the length of the field within the bounds of the schema.",
    Reason.DROPPED_BY_RULE: (
        "Nothing: a rule of the schema keeps such events out of silver; their bytes are kept here."
    ),
    Reason.FAILED_BY_RULE: (
        "Repair the sender: a rule of the schema fails the source for this. Then enable the source."
    ),
    Reason.SOURCE_FAILED: (
        "Repair the sender, then enable the source: dcp source enable SOURCE_ID. What was sent"
        " meanwhile is kept."
    ),
}
