"""Which credential counts, whose it is, and how soon a key lives and dies."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from dc_platform.errors import StoreUnavailableError
from dc_platform.gateway.auth import AuthError, KeyRing, key_of
from dc_platform.registry.database import Database
from dc_platform.registry.sources import KeyOwner, Sources, SourceType
from dc_platform.registry.tokens import Scope, Tokens


def basic(text: str, encoding: str = "utf-8") -> str:
    return "Basic " + base64.b64encode(text.encode(encoding)).decode()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"X-API-Key": "k"}, "k"),
        ({"x-api-key": " k "}, "k"),
        ({"Authorization": "Bearer k"}, "k"),
        ({"Authorization": "bearer  k "}, "k"),
        ({"Authorization": basic("k:")}, "k"),
        ({"Authorization": basic("k:password:more")}, "k"),
        ({"Authorization": basic("k")}, "k"),
        ({"Authorization": basic("ключ:")}, "ключ"),
        # X-API-Key, when present, alone decides, be it wrong or empty.
        ({"X-API-Key": "k", "Authorization": "Bearer other"}, "k"),
        ({"X-API-Key": "", "Authorization": "Bearer other"}, ""),
        ({"Authorization": "Bearer"}, None),
        ({"Authorization": "Bearer  "}, None),
        ({"Authorization": "k"}, None),
        ({"Authorization": "Digest k"}, None),
        ({"Authorization": basic(":password")}, None),
        ({"Authorization": "Basic"}, None),
        ({"Authorization": "Basic !!!"}, None),
        ({"Authorization": "Basic é"}, None),
        ({"Authorization": basic("é:", "latin-1")}, None),
    ],
)
def test_the_key_of_a_request(headers: dict[str, str], expected: str | None) -> None:
    assert key_of(Headers(headers)) == expected


header_text = st.text(st.characters(max_codepoint=255), max_size=30)


@given(st.sampled_from(["", "Basic ", "Bearer ", "basic"]), header_text, st.booleans())
def test_no_header_raises_anything(scheme: str, text: str, direct: bool) -> None:
    raw = [(b"authorization", (scheme + text).encode("latin-1"))]
    if direct:
        raw.append((b"x-api-key", text.encode("latin-1")))
    key = key_of(Headers(raw=raw))
    assert key is None or isinstance(key, str)
    if direct:
        assert key == text.strip()


class Counted(Sources):
    """Counts how often the registry is looked at; may be away."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.looks = 0
        self.reads = 0
        self.away = False

    def version(self) -> int:
        self.looks += 1
        if self.away:
            raise StoreUnavailableError("away")
        return super().version()

    def keys(self) -> dict[str, KeyOwner]:
        self.reads += 1
        return super().keys()


@pytest.fixture
def counted(database: Database) -> Counted:
    return Counted(database)


def ask(ring: KeyRing, headers: Mapping[str, str]) -> KeyOwner | int:
    """The owner, or the status of the refusal."""
    try:
        return asyncio.run(ring.owner_of(Headers(dict(headers))))
    except AuthError as error:
        return error.status


def ring_of(sources: Sources) -> KeyRing:
    made = KeyRing(sources, refresh_seconds=0.01)
    made.refresh()
    return made


Present = Callable[[str], dict[str, str]]
WAYS: list[Present] = [
    lambda key: {"X-API-Key": key},
    lambda key: {"Authorization": f"Bearer {key}"},
    lambda key: {"Authorization": basic(f"{key}:")},
]


@pytest.mark.parametrize("present", WAYS)
def test_a_key_names_its_source_and_nothing_else_does(
    database: Database, sources: Sources, present: Present
) -> None:
    made, key = sources.create("s", SourceType.SERVER, tenant_id="acme")
    tokens = [Tokens(database).create(scope) for scope in Scope]
    ring = ring_of(sources)
    assert ask(ring, present(key)) == KeyOwner(made.source_id, "acme", True)
    # Tokens of people never write.
    for wrong in (*tokens, key[:-1], key + "x", key.upper(), made.source_id, "é"):
        assert ask(ring, present(wrong)) == 401, wrong


def test_a_wrong_x_api_key_is_not_helped_by_a_right_one_elsewhere(sources: Sources) -> None:
    _, key = sources.create("s", SourceType.SERVER)
    ring = ring_of(sources)
    bearer = {"Authorization": f"Bearer {key}"}
    assert ask(ring, {**bearer, "X-API-Key": "wrong"}) == 401
    assert ask(ring, {**bearer, "X-API-Key": ""}) == 401
    assert isinstance(ask(ring, bearer), KeyOwner)
    assert ask(ring, {}) == 401


def test_x_source_id_may_be_left_out_and_may_not_differ(sources: Sources) -> None:
    made, key = sources.create("s", SourceType.SERVER)
    other, _ = sources.create("other", SourceType.SERVER)
    ring = ring_of(sources)
    for same in ("", made.source_id, made.source_id.upper(), f" {made.source_id} "):
        found = ask(ring, {"X-API-Key": key, "X-Source-Id": same})
        assert isinstance(found, KeyOwner), same
    for differs in (other.source_id, "x", made.source_id[:-1], made.source_id.replace("-", "")):
        assert ask(ring, {"X-API-Key": key, "X-Source-Id": differs}) == 403, differs


def test_a_disabled_source_is_403_and_a_deleted_one_401(sources: Sources) -> None:
    made, key = sources.create("s", SourceType.SERVER)
    ring = ring_of(sources)
    sources.change(made.source_id, enabled=False)
    ring.refresh()
    assert ask(ring, {"X-API-Key": key}) == 403
    sources.change(made.source_id, enabled=True)
    ring.refresh()
    assert isinstance(ask(ring, {"X-API-Key": key}), KeyOwner)
    sources.delete(made.source_id)
    ring.refresh()
    assert ask(ring, {"X-API-Key": key}) == 401


def test_keys_follow_the_registry_by_themselves(counted: Counted) -> None:
    made, key = counted.create("s", SourceType.SERVER)

    async def scenario() -> None:
        ring = KeyRing(counted, refresh_seconds=0.01)
        following = asyncio.create_task(ring.follow())
        headers = Headers({"X-API-Key": key})
        assert (await ring.owner_of(headers)).source_id == made.source_id
        # While the registry is away, known keys stay valid.
        counted.away = True
        looks = counted.looks
        while counted.looks < looks + 3:
            await asyncio.sleep(0.01)
        assert (await ring.owner_of(headers)).source_id == made.source_id
        counted.away = False
        counted.delete(made.source_id)

        async def refusal() -> AuthError:
            while True:
                try:
                    await ring.owner_of(headers)
                except AuthError as error:
                    return error
                await asyncio.sleep(0.01)

        async with asyncio.timeout(30):
            assert (await refusal()).status == 401
        following.cancel()

    asyncio.run(scenario())


def test_keys_are_read_anew_only_after_a_change(counted: Counted) -> None:
    ring = ring_of(counted)
    for _ in range(5):
        ring.refresh()
    assert counted.reads == 1
    counted.create("s", SourceType.SERVER)
    ring.refresh()
    ring.refresh()
    assert counted.reads == 2


def test_a_new_key_is_known_at_once(counted: Counted) -> None:
    ring = ring_of(counted)

    async def scenario() -> None:
        for _ in range(3):
            made, key = counted.create("s", SourceType.SERVER)
            owner = await ring.owner_of(Headers({"X-API-Key": key}))
            assert owner.source_id == made.source_id

    asyncio.run(scenario())


def test_a_flood_of_wrong_keys_is_one_look_at_the_registry(counted: Counted) -> None:
    _, key = counted.create("s", SourceType.SERVER)
    ring = ring_of(counted)

    async def scenario() -> None:
        counted.looks = counted.reads = 0
        headers = [Headers({"X-API-Key": f"dck_{number}"}) for number in range(1000)]
        results = await asyncio.gather(*map(ring.owner_of, headers), return_exceptions=True)
        assert {type(result) for result in results} == {AuthError}
        assert (counted.looks, counted.reads) == (1, 0)
        # Known keys do not look at all.
        await ring.owner_of(Headers({"X-API-Key": key}))
        assert counted.looks == 1

    asyncio.run(scenario())


def test_an_unknown_key_is_not_refused_for_good_while_the_registry_is_away(
    counted: Counted,
) -> None:
    ring = ring_of(counted)
    _, key = counted.create("s", SourceType.SERVER)
    counted.away = True
    with pytest.raises(StoreUnavailableError):
        ask(ring, {"X-API-Key": key})
    counted.away = False
    assert isinstance(ask(ring, {"X-API-Key": key}), KeyOwner)
