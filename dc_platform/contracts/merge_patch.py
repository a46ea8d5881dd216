"""JSON Merge Patch (RFC 7396) on bytes: what the patch does not name stays byte for byte as it was.

A parser that reads a whole event and writes it again makes `1.1` of `1.10`. Here only objects that the
patch reaches into are taken apart, into members whose bytes are kept.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dc_platform.contracts.envelope import MAX_DEPTH
from dc_platform.errors import ConfigurationError

Patch = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_patch(text: str) -> Patch:
    """The patch that a person wrote; raises ConfigurationError when it is no JSON object."""
    try:
        patch = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigurationError(f"the patch is no JSON: {error}") from error
    if not isinstance(patch, dict):
        raise ConfigurationError(
            'the patch has to be a JSON object (RFC 7396), such as {"eventType": "order"}'
        )
    if _depth(patch) > MAX_DEPTH:
        raise ConfigurationError(f"the patch is nested more than {MAX_DEPTH} levels deep")
    return patch


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def merge(document: bytes, patch: Patch) -> bytes:
    """`document` with the patch applied. What is no JSON object is left as it is: a patch repairs
    events, and does not make any of nothing (RFC 7396 would).
    """
    try:
        members = _members.decode(document)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return document
    kept = {name: bytes(value) for name, value in members.items()}
    for name, value in patch.items():
        if value is None:
            kept.pop(name, None)
        elif isinstance(value, dict):
            kept[name] = merge(_object(kept.get(name, b"{}")), value)
        else:
            kept[name] = _encode(value)
    return b"{" + b",".join(_encode(name) + b":" + value for name, value in kept.items()) + b"}"


def _object(value: bytes) -> bytes:
    """The value when it is an object, else an empty one, which takes its place (RFC 7396)."""
    return value if value.lstrip()[:1] == b"{" else b"{}"
