"""Tokens of people and tools, and the door that asks for them."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import text

from dc_platform.registry import access
from dc_platform.registry.access import TokenRing, need_scope
from dc_platform.registry.database import Database
from dc_platform.registry.keys import hash_secret
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.registry.tokens import Scope, TokenOwner, Tokens
from dc_platform_tests.helpers.asgi import request

SECONDS = 2.0


@pytest.fixture
def tokens(database: Database) -> Tokens:
    return Tokens(database)


def revoke_all(database: Database) -> None:
    with database.change() as session:
        session.execute(text("update tokens set revoked_ms = 1"))


def test_a_token_is_stored_hashed_and_has_its_scope(database: Database, tokens: Tokens) -> None:
    query = tokens.create(Scope.QUERY)
    admin = tokens.create(Scope.ADMIN, tenant_id="acme")
    assert query.startswith("dct_")
    assert tokens.owner_of(query) == TokenOwner(Scope.QUERY, "default", query[:10])
    assert tokens.owner_of(admin) == TokenOwner(Scope.ADMIN, "acme", admin[:10])
    assert tokens.all().keys() == {hash_secret(query), hash_secret(admin)}
    with database.session() as session:
        stored = repr([tuple(row) for row in session.execute(text("select * from tokens"))])
    assert query not in stored
    assert admin[-30:] not in stored
    revoke_all(database)
    assert tokens.owner_of(query) is None
    assert tokens.all() == {}


def test_admin_includes_query_and_not_the_other_way() -> None:
    may = {(o, s) for o in Scope for s in Scope if TokenOwner(o, "default").may(s)}
    assert may == {
        (Scope.ADMIN, Scope.ADMIN),
        (Scope.ADMIN, Scope.QUERY),
        (Scope.QUERY, Scope.QUERY),
    }


def test_keys_are_no_tokens_and_tokens_no_keys(database: Database, tokens: Tokens) -> None:
    sources = Sources(database)
    _, key = sources.create("s", SourceType.SERVER)
    token = tokens.create(Scope.ADMIN)
    assert tokens.owner_of(key) is None
    assert sources.owner_of(token) is None


class Door:
    """An application with one route per scope."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(access.time, "monotonic", lambda: self.now)
        app = FastAPI()
        app.state.tokens = TokenRing(Tokens(database), seconds=SECONDS)

        @app.get("/query")
        def _query(owner: Annotated[TokenOwner, Depends(need_scope(Scope.QUERY))]) -> Any:
            return owner.tenant_id

        @app.get("/admin")
        def _admin(owner: Annotated[TokenOwner, Depends(need_scope(Scope.ADMIN))]) -> Any:
            return owner.tenant_id

        self._app = app

    def get(self, path: str, authorization: str | None) -> int:
        headers = {} if authorization is None else {"Authorization": authorization}
        answer = request(self._app, "GET", path, headers=headers)
        assert ("WWW-Authenticate" in answer.headers) == (answer.status_code == 401)
        return answer.status_code


@pytest.fixture
def door(database: Database, monkeypatch: pytest.MonkeyPatch) -> Door:
    return Door(database, monkeypatch)


def test_who_is_let_in(door: Door, tokens: Tokens) -> None:
    query, admin = tokens.create(Scope.QUERY), tokens.create(Scope.ADMIN)
    assert door.get("/query", f"Bearer {query}") == 200
    assert door.get("/query", f"bearer  {admin} ") == 200
    assert door.get("/admin", f"Bearer {admin}") == 200
    assert door.get("/admin", f"Bearer {query}") == 403
    for nothing in (None, "", "Bearer", "Bearer ", query, f"Basic {query}", "Bearer dct_wrong"):
        assert door.get("/query", nothing) == 401, nothing


def test_a_revoked_token_dies_within_seconds(
    door: Door, database: Database, tokens: Tokens
) -> None:
    token = tokens.create(Scope.QUERY)
    assert door.get("/query", f"Bearer {token}") == 200
    revoke_all(database)
    door.now += SECONDS + 0.1
    assert door.get("/query", f"Bearer {token}") == 401


def test_a_token_is_asked_of_the_registry_once_in_so_long(
    door: Door, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Tokens, "owner_of", lambda _, token: asked.append(token))
    for _ in range(5):
        assert door.get("/query", "Bearer dct_wrong") == 401
    assert len(asked) == 1
    door.now += SECONDS + 0.1
    assert door.get("/query", "Bearer dct_wrong") == 401
    assert len(asked) == 2
