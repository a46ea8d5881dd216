"""A request's body: read within a limit, hashed, decompressed within another limit."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dc_platform.contracts.envelope import Rejected
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.rejects import OVERSIZE_KEPT_BYTES

# Of a body above the limit so much is still read, to know its length and hash; then the
# connection is closed.
_HASHED_TIMES_LIMIT = 16
# A gzip body may have many members, and what follows a member is copied: so no more than this.
_INFLATED_AT_ONCE = 16 * 1024


@dataclass(frozen=True)
class Body:
    """What a client sent. When it is too large, `raw` is its beginning."""

    raw: bytes
    length: int
    sha256: str
    too_large: bool = False


async def read_body(chunks: AsyncIterator[bytes], *, limit: int) -> Body:
    """Read a whole body, keeping all of it up to `limit` and the first 64 KiB beyond."""
    kept: list[bytes] = []
    digest = hashlib.sha256()
    length = 0
    async for chunk in chunks:
        length += len(chunk)
        digest.update(chunk)
        if length <= limit:
            kept.append(chunk)
        elif length - len(chunk) <= limit:
            kept = [b"".join([*kept, chunk])[:OVERSIZE_KEPT_BYTES]]
        if length > limit * _HASHED_TIMES_LIMIT:
            break
    return Body(b"".join(kept), length, digest.hexdigest(), too_large=length > limit)


def decompress(raw: bytes, encoding: str, *, limit: int) -> bytes | Rejected:
    """The content of a body with a `Content-Encoding`; never more than `limit` bytes of memory."""
    if encoding in ("", "identity"):
        return raw
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return Rejected(
            Reason.BAD_COMPRESSION, f"Content-Encoding {encoding!r} is not known; send gzip"
        )
    content = bytearray()
    # 47: gzip or zlib, told by the header
    inflater = zlib.decompressobj(47)
    source = memoryview(raw)
    at = 0
    while at < len(source):
        if inflater.eof:
            inflater = zlib.decompressobj(47)
        piece = source[at : at + _INFLATED_AT_ONCE]
        try:
            content += inflater.decompress(piece, limit + 1 - len(content))
        except zlib.error as error:
            return Rejected(Reason.BAD_COMPRESSION, f"body is not {encoding}: {error}")
        if len(content) > limit:
            return Rejected(
                Reason.BODY_TOO_LARGE, f"body has more than {limit} bytes when decompressed"
            )
        at += len(piece) - len(inflater.unused_data)
    if not inflater.eof:
        return Rejected(Reason.BAD_COMPRESSION, f"the {encoding} body is cut off")
    return bytes(content)
