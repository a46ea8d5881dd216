"""Bearer tokens of people and tools: `query` reads, `admin` also changes; none writes events."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import select

from dc_platform.registry.database import Database, now_ms
from dc_platform.registry.keys import TOKEN_PREFIX, hash_secret, new_secret
from dc_platform.registry.models import TokenRow


class Scope(StrEnum):
    """What a token may do; `admin` includes `query`."""

    QUERY = "query"
    ADMIN = "admin"


class TokenOwner(NamedTuple):
    """What a token stands for."""

    scope: Scope
    tenant_id: str
    # What is stored of the token in clear: enough to tell tokens apart, in a history of changes.
    hint: str = ""

    def may(self, scope: Scope) -> bool:
        """Whether the token has `scope`."""
        return self.scope is Scope.ADMIN or self.scope is scope


class Tokens:
    """Reads and writes tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, scope: Scope, *, tenant_id: str = "default") -> str:
        """A new token, which is shown only now."""
        secret = new_secret(TOKEN_PREFIX)
        with self._database.change() as session:
            session.add(
                TokenRow(
                    token_hash=secret.hash,
                    scope=scope.value,
                    tenant_id=tenant_id,
                    hint=secret.hint,
                    created_ms=now_ms(),
                )
            )
        return secret.text

    def owner_of(self, token: str) -> TokenOwner | None:
        """What a living token stands for, asked of the database."""
        query = select(TokenRow.scope, TokenRow.tenant_id, TokenRow.hint).where(
            TokenRow.token_hash == hash_secret(token), TokenRow.revoked_ms.is_(None)
        )
        with self._database.reading() as session:
            row = session.execute(query).first()
            return TokenOwner(Scope(row[0]), row[1], row[2]) if row else None

    def all(self) -> dict[str, TokenOwner]:
        """Hash of every living token → what it stands for."""
        query = select(TokenRow.token_hash, TokenRow.scope, TokenRow.tenant_id).where(
            TokenRow.revoked_ms.is_(None)
        )
        with self._database.reading() as session:
            return {
                token: TokenOwner(Scope(scope), tenant)
                for token, scope, tenant in session.execute(query)
            }
