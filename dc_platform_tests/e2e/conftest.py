"""One stack for all tests that do not harm it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dc_platform_tests.e2e.platform import Platform, running


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running stack, shared: tests use sources of their own."""
    with running(tmp_path_factory.mktemp("platform")) as started:
        yield started


@pytest.fixture(scope="session")
def query_token(platform: Platform) -> str:
    """A token that may query."""
    return platform.token("query")
