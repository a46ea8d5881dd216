"""One stack for all tests that do not harm it, and one Trino.

Of this package, not of the session: idle they take half a core from the tests that come after.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import store_commits
from dc_platform_tests.e2e.platform import Platform, running
from dc_platform_tests.e2e.union import UnionScene, union_parts
from dc_platform_tests.helpers.trino import SharedTrino


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running stack, shared: tests use sources of their own."""
    with running(tmp_path_factory.mktemp("platform")) as started:
        yield started


@pytest.fixture(scope="package")
def query_token(platform: Platform) -> str:
    """A token that may query."""
    return platform.token("query")


@pytest.fixture(scope="package")
def shared_trino(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedTrino]:
    """A Trino that all tests share: `show` gives it a test's lake and topic."""
    # A path as people have them.
    trino = SharedTrino(tmp_path_factory.mktemp("Müllers Trino"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", store_commits.KEY)
        environment.setenv("AWS_SECRET_ACCESS_KEY", store_commits.SECRET)
        trino.start()
    with trino:
        yield trino


@pytest.fixture(scope="package")
def union_session(
    tmp_path_factory: pytest.TempPathFactory, shared_trino: SharedTrino
) -> Iterator[UnionScene]:
    """A gateway, serving and Trino over a topic; tests use sources of their own."""
    with union_parts(tmp_path_factory.mktemp("union"), shared_trino) as scene:
        yield scene


@pytest.fixture
def union_scene(union_session: UnionScene, shared_trino: SharedTrino) -> UnionScene:
    """The same, and Trino looks at it."""
    return union_session.show(shared_trino)
