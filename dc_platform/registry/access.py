"""Bearer tokens at an HTTP door: a FastAPI dependency that knows the living tokens, and what keeps
bodies small. FastAPI reads a body before it looks at dependencies: all of it, from anybody.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import anyio
from fastapi import HTTPException, Request
from fastapi.exception_handlers import http_exception_handler
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from dc_platform.registry.keys import hash_secret
from dc_platform.registry.tokens import Scope, TokenOwner, Tokens

# SQL of 100,000 characters, or 10,000 values of a filter, and much beside it.
MOST_BODY_BYTES = 2**20


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


class BodyDoor:
    """ASGI: below `prefix` a body is read when it comes with a token, up to MOST_BODY_BYTES."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer 401 or 413, or let the request in."""
        if scope["type"] != "http" or not scope["path"].startswith(self._prefix):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        length = request.headers.get("content-length", "")
        left = MOST_BODY_BYTES

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _too_large()
            return message

        try:
            if length not in ("", "0") or "transfer-encoding" in request.headers:
                _token_of(request)
            if length.isdecimal() and int(length) > MOST_BODY_BYTES:
                raise _too_large()
        except HTTPException as error:
            answer = await http_exception_handler(request, error)
            await answer(scope, receive, send)
        else:
            await self._app(scope, counted, send)


def need_scope(scope: Scope) -> Callable[[Request], Awaitable[TokenOwner]]:
    """A dependency that lets a request in only with a token of that scope."""

    async def check(request: Request) -> TokenOwner:
        token = _token_of(request)
        ring: TokenRing = request.app.state.tokens
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


def _token_of(request: Request) -> str:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise HTTPException(
            401,
            "Send Authorization: Bearer <token>; dcp token create makes one.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return token.strip()


def _too_large() -> HTTPException:
    # What is still to come is not read.
    close = {"Connection": "close"}
    return HTTPException(413, f"The body has more than {MOST_BODY_BYTES} bytes.", headers=close)
