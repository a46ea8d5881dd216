"""Whose key is it? Keys are held in memory, by hash, and follow the registry within seconds.

The credential that counts: `X-API-Key` when present, alone; otherwise the key as
`Authorization: Bearer` or as the Basic user. A query or admin token is no key and never writes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Mapping

from dc_platform.contracts import identity
from dc_platform.errors import StoreUnavailableError
from dc_platform.registry.keys import hash_secret
from dc_platform.registry.sources import KeyOwner, Sources

log = logging.getLogger(__name__)

# An unknown key is asked of the database once in so long: a flood of wrong keys costs nothing.
_MISS_SECONDS = 1.0
_MISSES = 10_000


class AuthError(Exception):
    """The request may not write. `status` is 401 or 403."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class KeyRing:
    """All living keys, refreshed when the registry changes."""

    def __init__(self, sources: Sources, *, refresh_seconds: float) -> None:
        self._sources = sources
        self._refresh_seconds = refresh_seconds
        self._keys: dict[str, KeyOwner] = {}
        self._misses: dict[str, float] = {}
        self._version = -1

    async def follow(self) -> None:
        """Refresh for ever. A registry that is away changes nothing: known keys stay valid."""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
            except StoreUnavailableError as error:
                log.warning("%s", error)
            await asyncio.sleep(self._refresh_seconds)

    def refresh(self) -> None:
        """Read all keys anew when anything changed."""
        version = self._sources.version()
        if version != self._version:
            self._keys = self._sources.keys()
            self._version = version

    async def owner_of(self, headers: Mapping[str, str]) -> KeyOwner:
        """The owner of the request's key; raises AuthError."""
        key = key_of(headers)
        if key is None:
            raise AuthError(
                401, "unauthorized", "No key: send the source's key in the header X-API-Key."
            )
        owner = self._keys.get(hash_secret(key)) or await self._ask(key)
        if owner is None:
            raise AuthError(
                401, "unauthorized", "The key is not known or was revoked: dcp source create."
            )
        if not owner.enabled:
            raise AuthError(403, "source_inactive", "The source is disabled.")
        named = headers.get("x-source-id")
        if named and (identity.canonical_uuid(named.strip()) or named) != owner.source_id:
            raise AuthError(403, "source_mismatch", f"The key does not belong to source {named}.")
        return owner

    async def _ask(self, key: str) -> KeyOwner | None:
        """A key made since the last refresh."""
        hashed = hash_secret(key)
        now = time.monotonic()
        if now - self._misses.get(hashed, -_MISS_SECONDS) < _MISS_SECONDS:
            return None
        try:
            owner = await asyncio.to_thread(self._sources.owner_of, key)
        except StoreUnavailableError as error:
            log.warning("%s", error)
            return None
        if owner is None:
            if len(self._misses) >= _MISSES:
                self._misses.clear()
            self._misses[hashed] = now
        return owner


def key_of(headers: Mapping[str, str]) -> str | None:
    """The key that a request carries, by the order of precedence above."""
    direct = headers.get("x-api-key")
    if direct is not None:
        return direct.strip()
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if scheme.lower() == "basic":
        try:
            user = base64.b64decode(value.strip(), validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return None
        return user or None
    return None
