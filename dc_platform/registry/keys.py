"""Secrets: how keys and tokens are made, shown once, and stored.

A secret has 256 random bits, so a single SHA-256 is enough to store it: there is nothing to guess.
The prefix says what it is, to people and to secret scanners: `dck_` a source's key, `dct_` a token.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

KEY_PREFIX = "dck_"
TOKEN_PREFIX = "dct_"  # noqa: S105


class Secret(NamedTuple):
    """A new secret. `text` is shown once and never stored; `hint` is enough to recognise it."""

    text: str
    hash: str
    hint: str


def new_secret(prefix: str) -> Secret:
    """A fresh secret with the prefix."""
    text = prefix + secrets.token_urlsafe(32)
    return Secret(text, hash_secret(text), text[: len(prefix) + 6])


def hash_secret(text: str) -> str:
    """The form in which a secret is stored and looked up."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
