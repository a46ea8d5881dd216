"""Fixtures of the landing tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from dc_platform.lake.store import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake without tables."""
    return Lake(str(tmp_path / "lake"))
