"""A request's bytes: read, limited, hashed and decompressed, or refused for a named reason."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.contracts.envelope import Rejected
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.rejects import OVERSIZE_KEPT_BYTES
from dc_platform.gateway import body as body_module
from dc_platform.gateway.body import Body, decompress, read_body

LIMIT = 100_000


class Chunks:
    """A body as it arrives; counts what was taken from it."""

    def __init__(self, chunks: Sequence[bytes]) -> None:
        self.chunks = chunks
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            self.taken += 1
            yield chunk


def read(chunks: Sequence[bytes] | Chunks, limit: int = LIMIT) -> Body:
    source = chunks if isinstance(chunks, Chunks) else Chunks(chunks)
    return asyncio.run(read_body(aiter(source), limit=limit))


def reason(found: bytes | Rejected) -> Reason:
    assert isinstance(found, Rejected)
    assert found.message
    return found.reason


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 200))
def test_a_body_is_the_same_in_any_chunks(chunks: list[bytes], limit: int) -> None:
    whole = b"".join(chunks)
    found = read(chunks, limit)
    if len(whole) <= limit:
        assert found == Body(whole, len(whole), hashlib.sha256(whole).hexdigest())
    else:
        assert found.too_large
        assert whole.startswith(found.raw)


def test_the_limit_itself_is_allowed() -> None:
    whole = bytes(LIMIT)
    assert not read([whole]).too_large
    assert read([whole, b"", b""]).raw == whole
    assert read([whole, b"x"]).too_large


def test_of_a_body_over_the_limit_the_beginning_the_length_and_the_hash_are_kept() -> None:
    chunks = [bytes([n]) * 1000 for n in range(150)]
    whole = b"".join(chunks)
    expected = Body(
        whole[:OVERSIZE_KEPT_BYTES], len(whole), hashlib.sha256(whole).hexdigest(), too_large=True
    )
    assert read(chunks) == expected
    assert read([whole]) == expected


def test_a_body_without_end_is_left() -> None:
    chunks = Chunks([bytes(LIMIT)] * 1000)
    found = read(chunks)
    assert found.too_large
    assert len(found.raw) == OVERSIZE_KEPT_BYTES
    assert 16 <= chunks.taken <= 18


def encodings(content: bytes) -> dict[str, bytes]:
    zipped = gzip.compress(content)
    return {"": content, "identity": content, "gzip": zipped, "x-gzip": zipped} | {
        "deflate": zlib.compress(content)
    }


@given(st.binary(max_size=5000))
def test_what_was_compressed_comes_back(content: bytes) -> None:
    for encoding, raw in encodings(content).items():
        assert decompress(raw, encoding, limit=LIMIT) == content, encoding


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 40))
def test_a_gzip_body_may_have_many_members(contents: list[bytes], at_once: int) -> None:
    raw = b"".join(map(gzip.compress, contents))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_module, "_INFLATED_AT_ONCE", at_once)
        assert decompress(raw, "gzip", limit=LIMIT) == b"".join(contents)


def test_a_large_body_comes_back() -> None:
    content = bytes(range(256)) * 20_000
    assert decompress(gzip.compress(content), "gzip", limit=len(content)) == content
    assert (
        reason(decompress(gzip.compress(content), "gzip", limit=len(content) - 1))
        is Reason.BODY_TOO_LARGE
    )


@contextmanager
def peak() -> Iterator[list[int]]:
    """The most memory that was taken meanwhile, in bytes."""
    found: list[int] = []
    tracemalloc.start()
    try:
        yield found
        found.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("members", [1, 50])
def test_a_bomb_takes_no_more_memory_than_the_limit(members: int) -> None:
    bomb = gzip.compress(bytes(50_000_000 // members)) * members
    with peak() as found:
        assert reason(decompress(bomb, "gzip", limit=LIMIT)) is Reason.BODY_TOO_LARGE
    assert found[0] < 5 * LIMIT


def test_bytes_behind_a_member_are_not_copied_for_each_member(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once a body of empty members took time by the square of its length."""
    copied = 0
    original = zlib.decompressobj

    class Counting:
        def __init__(self, bits: int) -> None:
            self._inner = original(bits)

        def decompress(self, piece: bytes, most: int) -> bytes:
            nonlocal copied
            copied += len(piece)
            return self._inner.decompress(piece, most)

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    member = gzip.compress(b"")
    assert decompress(member * 5000, "gzip", limit=LIMIT) == b""
    assert copied < 5000 * 17_000


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_cut_body_is_refused(content: bytes, data: st.DataObject) -> None:
    for encoding, raw in encodings(content).items():
        if encoding in ("", "identity"):
            continue
        cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
        assert reason(decompress(cut, encoding, limit=LIMIT)) is Reason.BAD_COMPRESSION


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "\xe9"])
def test_an_unknown_encoding_is_named(encoding: str) -> None:
    found = decompress(b"{}", encoding, limit=LIMIT)
    assert reason(found) is Reason.BAD_COMPRESSION
    assert isinstance(found, Rejected)
    assert encoding in found.message


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate"]), st.booleans())
def test_nothing_but_a_typed_refusal_comes_of_any_bytes(
    raw: bytes, encoding: str, behind: bool
) -> None:
    body = gzip.compress(b"fine") + raw if behind else raw
    found = decompress(body, encoding, limit=200)
    assert isinstance(found, bytes) or found.reason in (
        Reason.BAD_COMPRESSION,
        Reason.BODY_TOO_LARGE,
    )
    if isinstance(found, bytes):
        assert len(found) <= 200
