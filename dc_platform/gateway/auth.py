"""Whose key is it? Keys are held in memory, by hash, and follow the registry within seconds.

The credential that counts: `X-API-Key` when present, alone; otherwise the key as
`Authorization: Bearer` or as the Basic user. A query or admin token is no key and never writes.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import threading
import time
from collections.abc import Mapping

from dc_platform.contracts import identity
from dc_platform.errors import StoreUnavailableError
from dc_platform.gateway.rules import RuleBook
from dc_platform.gateway.sampling import Sampler
from dc_platform.registry.keys import hash_secret
from dc_platform.registry.sources import KeyOwner, Sources

log = logging.getLogger(__name__)

# For unknown keys the registry is looked at once in so long, for all of them together: a flood of
# wrong keys costs nothing.
_LOOK_SECONDS = 0.05


class AuthError(Exception):
    """The request may not write. `status` is 401 or 403."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class KeyRing:
    """All living keys, refreshed when the registry changes."""

    def __init__(
        self,
        sources: Sources,
        *,
        refresh_seconds: float,
        rules: RuleBook | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self._sources = sources
        self._rules = rules
        self._refresh_seconds = refresh_seconds
        self._sampler = sampler
        self._keys: dict[str, KeyOwner] = {}
        self._version = -1
        self._refreshing = threading.Lock()
        self._looking = asyncio.Lock()
        self._looked_at = -math.inf

    async def follow(self) -> None:
        """Refresh for ever. A registry that is away changes nothing: known keys stay valid."""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
            except StoreUnavailableError as error:
                log.warning("%s", error)
            await asyncio.sleep(self._refresh_seconds)

    def refresh(self) -> None:
        """Read keys, rules and sampling anew when anything changed: before the key of a new source is
        known its schema is.
        """
        with self._refreshing:
            version = self._sources.version()
            if version != self._version:
                if self._rules is not None:
                    self._rules.refresh()
                self._keys = self._sources.keys()
                if self._sampler is not None:
                    self._sampler.update(self._sources.sampling())
                self._version = version

    async def owner_of(self, headers: Mapping[str, str]) -> KeyOwner:
        """The owner of the request's key; raises AuthError, or StoreUnavailableError when an
        unknown key cannot be looked up.
        """
        key = key_of(headers)
        if key is None:
            raise AuthError(
                401, "unauthorized", "No key: send the source's key in the header X-API-Key."
            )
        hashed = hash_secret(key)
        if hashed not in self._keys:
            await self._look()
        owner = self._keys.get(hashed)
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

    async def _look(self) -> None:
        """Wait for a look at the registry that begins after now: the key may be a new one."""
        arrived = time.monotonic()
        async with self._looking:
            if self._looked_at > arrived:
                return
            await asyncio.sleep(self._looked_at + _LOOK_SECONDS - time.monotonic())
            self._looked_at = time.monotonic()
            await asyncio.to_thread(self.refresh)


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
        except ValueError:  # not Base64, not ASCII, not UTF-8
            return None
        return user or None
    return None
