"""The dashboard's files as a browser gets them: nothing inline or from elsewhere, readable colours.
What it does is tested in a browser: dc_platform_tests/dashboard.
"""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

import dc_platform.serving
from dc_platform.serving.pages import COOKIE
from dc_platform_tests.helpers.asgi import request
from dc_platform_tests.helpers.recent import Recent
from dc_platform_tests.helpers.serving_http import Door

FOLDER = Path(dc_platform.serving.__file__).parent / "dashboard"
FILES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file())
OURS = [name for name in FILES if not name.startswith("vendor/")]


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Door:
    return Door(Recent(tmp_path_factory.mktemp("page")))


def get(door: Door, path: str, **options: object) -> httpx.Response:
    return request(door.app, "GET", path, **options)


@pytest.mark.parametrize("name", ["", *FILES])
def test_every_file_comes_with_the_policy(door: Door, name: str) -> None:
    answer = get(door, f"/dashboard/{name}")
    assert answer.status_code == 200
    assert answer.content == (FOLDER / (name or "index.html")).read_bytes()
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'"} <= set(policy)
    assert "frame-ancestors 'none'" in policy
    assert not any("unsafe" in part or "http" in part or "*" in part for part in policy)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_the_root_leads_there_and_a_file_is_not_sent_twice(door: Door) -> None:
    answer = get(door, "/")
    assert answer.status_code in (302, 307)
    assert answer.headers["location"] == "dashboard/"
    tag = get(door, "/dashboard/main.js").headers["etag"]
    assert get(door, "/dashboard/main.js", headers={"If-None-Match": tag}).status_code == 304


def test_the_dashboard_and_quarantine_lead_to_each_other(door: Door) -> None:
    assert 'href="../quarantine"' in get(door, "/dashboard/").text
    with_login = {"Cookie": f"{COOKIE}={door.token}"}
    page = get(door, "/quarantine", headers=with_login)
    assert page.status_code == 200
    assert 'href="/dashboard/"' in page.text
    # The cookie is the pages' alone, the token that the dashboard sends the API's.
    assert get(door, "/api/v1/monitoring/tables", headers=with_login).status_code == 401
    assert get(door, "/quarantine", headers=door.headers).status_code == 401
    assert get(door, "/api/v1/monitoring/tables", headers=door.headers).status_code == 200


@pytest.mark.parametrize(
    "path", ["/dashboard/nothing.js", "/dashboard/../app.py", "/dashboard/vendor"]
)
def test_nothing_else_is_served(door: Door, path: str) -> None:
    assert get(door, path).status_code in (307, 404)


@pytest.mark.parametrize("name", OURS)
def test_nothing_is_inline_or_from_elsewhere(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert set(re.findall(r"https?://[^\"'\s)]+", text)) <= {"http://www.w3.org/2000/svg"}
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in text
    if name.endswith(".html"):
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


def test_what_is_vendored_has_its_licence() -> None:
    notice = (Path(dc_platform.__file__).parents[1] / "NOTICE").read_text()
    assert "uPlot 1.6.32" in notice
    assert "MIT License" in (FOLDER / "vendor" / "uPlot-LICENSE").read_text()


# --- colours ---


def themes() -> dict[str, dict[str, str]]:
    """Theme → variable → colour, of style.css."""
    text = (FOLDER / "style.css").read_text()
    blocks = re.findall(r'(:root\[data-theme="dark"\]|:root:not[^{]*|:root) \{([^}]*)\}', text)
    found = {}
    for selector, body in blocks:
        found[selector.strip()] = dict(re.findall(r"--([\w-]+): (#\w{6});", body))
    light, dark, system = (
        found[name]
        for name in (":root", ':root[data-theme="dark"]', ':root:not([data-theme="light"])')
    )
    # The switch's dark is the system's dark, and both say every colour anew.
    assert dark == system
    assert dark.keys() == light.keys()
    return {"light": light, "dark": dark}


def contrast(one: str, other: str) -> float:
    """Ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


TEXTS = [
    *((ink, ground) for ink in ("ink", "muted") for ground in ("page", "panel", "sunken")),
    *((ink, "panel") for ink in ("accent", "good", "warn", "bad")),
    ("accent-ink", "accent"),
    ("ink", "accent-soft"),
    ("ink", "warn-soft"),
    ("ink", "bad-soft"),
    ("bad", "page"),
]
MARKS = [*((f"series-{n}", "panel") for n in range(1, 7)), ("edge", "panel"), ("edge", "sunken")]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_and_marks_can_be_told_from_their_ground(theme: str) -> None:
    colours = themes()[theme]
    for ink, ground in TEXTS:
        assert contrast(colours[ink], colours[ground]) >= 4.5, f"{ink} on {ground}"
    for mark, ground in MARKS:
        assert contrast(colours[mark], colours[ground]) >= 3, f"{mark} on {ground}"


# --- what its query box asks for ---


def test_a_table_has_its_columns_and_says_when_there_is_more(door: Door) -> None:
    def table(sql: str, limit: int | None) -> object:
        body = {"sql": sql, "format": "table", "limit": limit}
        return request(door.app, "POST", "/api/v1/sql", headers=door.headers, json=body).json()

    sql = (
        "select n, 'a' as t, true as b, date '2024-01-02' as d, [n] as l, 1.5::decimal(9,1) as \"7\","
        " null as t from range(3) r(n)"
    )
    columns = [
        {"name": "n", "kind": "number"},
        {"name": "t", "kind": "text"},
        {"name": "b", "kind": "text"},
        {"name": "d", "kind": "time"},
        {"name": "l", "kind": "other"},
        {"name": "7", "kind": "number"},
        {"name": "t_1", "kind": "number"},
    ]
    rows = [[n, "a", True, "2024-01-02", [n], 1.5, None] for n in range(3)]
    assert table(sql, None) == {"columns": columns, "rows": rows, "more": False}
    assert table(sql, 3) == {"columns": columns, "rows": rows, "more": False}
    assert table(sql, 2) == {"columns": columns, "rows": rows[:2], "more": True}
    assert table("select 1 as x where false", 2) == {
        "columns": [{"name": "x", "kind": "number"}],
        "rows": [],
        "more": False,
    }
    assert table("select n from range(50000) r(n)", 20_000)["more"]  # type: ignore[index]
