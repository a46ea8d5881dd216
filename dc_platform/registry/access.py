"""Bearer tokens at an HTTP door: a FastAPI dependency that knows the living tokens."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import anyio
from fastapi import HTTPException, Request

from dc_platform.registry.keys import hash_secret
from dc_platform.registry.tokens import Scope, TokenOwner, Tokens


class TokenRing:
    """Looks tokens up in the registry and remembers the answer for `seconds`."""

    def __init__(self, tokens: Tokens, *, seconds: float) -> None:
        self._tokens = tokens
        self._seconds = seconds
        self._known: dict[str, tuple[float, TokenOwner | None]] = {}

    def owner_of(self, token: str) -> TokenOwner | None:
        """What the token stands for, at most `seconds` old."""
        known, owner = self.remembered(token)
        if not known:
            owner = self._tokens.owner_of(token)
            if len(self._known) > 10_000:
                self._known.clear()
            self._known[hash_secret(token)] = (time.monotonic(), owner)
        return owner

    def remembered(self, token: str) -> tuple[bool, TokenOwner | None]:
        """Whether it was looked up within `seconds`, and what was found."""
        at, owner = self._known.get(hash_secret(token), (-1e9, None))
        known = time.monotonic() - at <= self._seconds
        return known, owner if known else None


def need_scope(scope: Scope) -> Callable[[Request], Awaitable[TokenOwner]]:
    """A dependency that lets a request in only with a token of that scope."""

    async def check(request: Request) -> TokenOwner:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise HTTPException(
                401,
                f"Send Authorization: Bearer <token>; dcp token create --scope {scope} makes one.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        ring: TokenRing = request.app.state.tokens
        token = token.strip()
        known, owner = ring.remembered(token)
        if not known:
            # A thread for each request would take longer than all else here.
            owner = await anyio.to_thread.run_sync(ring.owner_of, token)
        if owner is None:
            raise HTTPException(
                401,
                "The token is not known or was revoked.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not owner.may(scope):
            raise HTTPException(403, f"The token has scope {owner.scope}; {scope} is needed.")
        return owner

    return check
