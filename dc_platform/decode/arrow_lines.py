"""The line that a row of an Arrow record stands for: what bronze keeps of it.

Written one by one for rows that the strict judge has to see, and in columns for all others, byte
for byte alike. Members that are null are left out; the payload stands last.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts.envelope import MAX_DEPTH, is_payload, is_too_deep
from dc_platform.decode.tags import members_of
from dc_platform.decode.texts import Distinct, Mask, json_of

_string = msgspec.json.Encoder().encode


def line(row: dict[str, Any]) -> bytes:
    """The line of one row, whatever it holds (a payload that is no JSON: as a string)."""
    parts = [
        b'"%s":%s,' % (name.encode(), _string(row[name]))
        for name in ("eventId", "sourceId", "timestamp", "eventType")
        if row[name] is not None
    ]
    metadata = []
    if row["version"] is not None:
        metadata.append(b'"version":' + _string(row["version"]))
    if row["tags"] is not None:
        tags = b",".join(_string(k) + b":" + _string(v) for k, v in row["tags"])
        metadata.append(b'"tags":{' + tags + b"}")
    if metadata:
        parts.append(b'"metadata":{' + b",".join(metadata) + b"},")
    payload = b"null" if row["payload"] is None else row["payload"].encode()
    if not is_payload(payload) and not is_too_deep(payload, MAX_DEPTH - 1):
        payload = _string(row["payload"])
    return b"{" + b"".join(parts) + b'"payload":' + payload + b"}"


def lines(
    events: dict[str, pa.Array],
    source: Distinct,
    event_type: Distinct,
    version: Distinct,
    tags: pa.Array | None,
    ok: Mask,
) -> pa.StringArray:
    """The lines of the rows that are `ok`, null for the others.

    The id is a UUID in these rows, and the payload a JSON object: both need no escapes.
    """
    event_id = events["eventId"]
    if not ok.all():
        event_id = pc.if_else(pa.array(ok), event_id, pa.scalar(None, pa.string()))
    time = events["timestamp"].cast(pa.string())
    named = source.spread(source.each(lambda t: f'","sourceId":{json_of(t)},"timestamp":'))
    if time.null_count:
        timeless = source.spread(source.each(lambda t: f'","sourceId":{json_of(t)}'))
        named = pc.if_else(time.is_valid(), named, timeless)
        time = time.fill_null("")
    if tags is None and not version.values:
        # The usual case: two texts less to join.
        rest = [
            event_type.spread(event_type.each(lambda t: f',"eventType":{json_of(t)},"payload":'))
        ]
    else:
        typed = event_type.spread(event_type.each(lambda t: f',"eventType":{json_of(t)},'))
        rest = [typed, _metadata(version, tags, len(ok)), '"payload":']
    return pc.binary_join_element_wise(
        '{"eventId":"', event_id, named, time, *rest, events["payload"], "}", ""
    )


def _metadata(version: Distinct, tags: pa.Array | None, size: int) -> pa.Array:
    """The member `metadata` with the comma after it; nothing where it has no members."""
    versions = version.spread(version.each(lambda text: f'"version":{json_of(text)}'))
    objects = pa.nulls(size, pa.string())
    if tags is not None:
        objects = pc.binary_join_element_wise('"tags":{', members_of(tags), "}", "")
    has_version, has_tags = versions.is_valid(), objects.is_valid()
    whole = pc.binary_join_element_wise(
        '"metadata":{',
        versions.fill_null(""),
        pc.if_else(pc.and_(has_version, has_tags), ",", ""),
        objects.fill_null(""),
        "},",
        "",
    )
    return pc.if_else(pc.or_(has_version, has_tags), whole, "")
