"""Where the lake is: a directory, also as a `file://` URI; what is not supported is said at start."""

from __future__ import annotations

from pathlib import Path

import pytest

from dc_platform.errors import ConfigurationError
from dc_platform.settings import Settings
from dc_platform_tests.helpers.records import block, gateway_line
from dc_platform_tests.helpers.serving import Served, view


@pytest.mark.parametrize(
    ("uri", "lake"),
    [
        ("/a/b", "/a/b"),
        ("a b", "a b"),
        ("file:///a/b", "/a/b"),
        ("FILE:///a%20b/c", "/a b/c"),
        ("file://localhost/a", "/a"),
    ],
)
def test_the_lake_is_a_directory(uri: str, lake: str) -> None:
    assert Settings(lake_uri=uri).lake == lake


@pytest.mark.parametrize("uri", ["s3://bucket/lake", "abfss://a@b/c", "file://relative", "://x"])
def test_what_is_not_supported_is_said_at_once(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCP_LAKE_URI", uri)
    with pytest.raises(ConfigurationError, match=r"^DCP_LAKE_URI: .*file:///path$"):
        Settings()


def test_a_lake_by_its_uri_is_written_and_read(tmp_path: Path) -> None:
    served = Served(tmp_path, lake_uri=(tmp_path / "the lake").as_uri())
    served.view = view(served.lake, [block([gateway_line(b'{"eventType":"t","payload":{}}')])])
    assert served.sql("select count(*) from events") == [(1,)]
    assert (tmp_path / "the lake" / "silver").is_dir()


def test_an_indexed_field_that_is_no_path_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCP_INDEXED_FIELDS", " user.id, ,cart.items[0].sku")
    assert Settings().index_fields == ("user.id", "cart.items[0].sku")
    monkeypatch.setenv("DCP_INDEXED_FIELDS", "userId,a..b")
    with pytest.raises(ValueError, match=r"'a\.\.b' is neither one of"):
        Settings()
