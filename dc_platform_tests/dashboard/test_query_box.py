"""The query box: a chart by the columns, a table, CSV, history, and errors in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from dc_platform_tests.dashboard.conftest import HOSTILE, Look, until
from dc_platform_tests.helpers.serving_http import Door


def run(page: Any, sql: str) -> None:
    """Run a query and wait for its end."""
    page.fill("#sql", sql)
    page.press("#sql", "Control+Enter")
    until(
        page,
        "document.querySelector('#query').getAttribute('aria-busy') === 'false'"
        " && document.querySelector('#result-summary').textContent !== 'Running…'",
    )


def cells(page: Any) -> list[list[str]]:
    rows = page.locator("#result-table tbody tr").all()
    return [row.locator("td").all_inner_texts() for row in rows]


def test_text_and_number_are_bars(look: Look) -> None:
    page = look()
    run(page, "select * from (values ('a', 1500), ('b', 20.5), (null, 3)) t(name, size)")
    assert page.locator("#result-chart .bar-name").all_inner_texts() == ["a", "b", "null"]
    assert page.locator("#result-chart .bar-value").all_inner_texts() == ["1,500", "20.5", "3"]
    assert cells(page) == [["a", "1,500"], ["b", "20.5"], ["null", "3"]]
    assert page.inner_text("#result-summary").startswith("3 rows, in ")


def test_time_and_number_are_a_line(look: Look) -> None:
    page = look()
    run(page, "select now() - to_minutes(n::int) as at, n, 2 * n as twice from range(40) r(n)")
    legend = page.locator("#result-chart .legend span").all_inner_texts()
    assert legend[:2] == ["n", "twice"]
    assert page.locator("#result-chart canvas").count() == 1


def test_time_text_and_number_are_a_line_for_each_text(look: Look) -> None:
    page = look()
    run(
        page,
        "select now() - to_minutes(n::int) as at, ['low', 'high'][n % 2 + 1] as kind, n % 2 + n as v"
        " from range(40) r(n)",
    )
    legend = page.locator("#result-chart .legend span").all_inner_texts()
    assert legend[:2] == ["high", "low"]


def test_another_chart_can_be_asked_for(look: Look) -> None:
    page = look()
    run(page, "select date '2024-01-01' + n::int as day, n from range(3) r(n)")
    assert page.locator("#result-chart canvas").count() == 1
    page.select_option("#chart-kind", "bars")
    assert page.locator("#result-chart .bar-name").all_inner_texts()[0] == "2024-01-01"
    page.select_option("#chart-kind", "none")
    assert page.inner_text("#result-chart") == ""
    run(page, "select 'a' as name, 1 as n")
    page.select_option("#chart-kind", "line")
    assert page.inner_text("#result-chart") == "A line needs a column of times and one of numbers."


def test_values_are_shown_as_they_are(look: Look) -> None:
    page = look()
    run(
        page,
        'select 9007199254740993 as big, [1, 2] as l, null as n, 1.10::decimal(9,2) as d, 2 as "7"',
    )
    assert cells(page) == [["9,007,199,254,740,993", "[1,2]", "null", "1.1", "2"]]
    assert page.locator("#result-table th").all_inner_texts() == ["big", "l", "n", "d", "7"]


def test_texts_of_events_are_texts(look: Look) -> None:
    page = look()
    for text in HOSTILE:
        shows_as_text(page, text)
    page.click("#history-box summary")
    assert page.locator("#history button").count() == 2 * len(HOSTILE)
    assert page.locator("#query img, #query script, #query svg").count() == 0


def shows_as_text(page: Any, text: str) -> None:
    literal = text.replace("'", "''")
    run(page, f"select '{literal}' as \"{text.replace(chr(34), chr(34) * 2)}\", 1 as n")
    assert cells(page) == [[text, "1"]]
    assert page.locator("#result-chart .bar-name").all_inner_texts() == [text]
    run(page, f'select "{text.replace(chr(34), chr(34) * 2)}" from events')
    assert text in page.inner_text("#sql-error")


def test_an_error_stands_at_the_query(look: Look) -> None:
    page = look()
    run(page, "select 'before' as x")
    run(page, "select nothing from events")
    assert "nothing" in page.inner_text("#sql-error")
    assert page.get_attribute("#sql", "aria-invalid") == "true"
    assert page.locator("#result-table td").count() == 0
    run(page, "drop table events")
    assert page.inner_text("#sql-error").startswith("Only SELECT is let through")
    # An error after the first rows has its reason, too.
    run(page, "select case when n < 1000000 then n else error('boom') end from range(2000000) r(n)")
    assert page.inner_text("#sql-error") == ""
    page.click("#csv")
    page.wait_for_selector("#sql-error:has-text('boom')")
    run(page, "select 1")
    assert page.inner_text("#sql-error") == ""


def test_nothing_to_run_is_said(look: Look) -> None:
    page = look()
    page.fill("#sql", "  ")
    page.click("#run")
    assert page.inner_text("#sql-error") == "Write a SELECT first, or take an example."


def test_of_many_rows_the_first_are_shown_and_the_csv_has_all(
    look: Look, door: Door, tmp_path: Path
) -> None:
    page = look()
    sql = "select n, 'x,\"' || n as text from range(2500) r(n)"
    run(page, sql)
    assert page.locator("#result-table tbody tr").count() == 1000
    assert page.inner_text("#result-summary").startswith("The first 1,000 rows; the CSV has all")
    with page.expect_download() as download:
        page.click("#csv")
    download.value.save_as(tmp_path / "result.csv")
    answer = httpx.post(
        f"{door.url}/api/v1/sql", headers=door.headers, json={"sql": sql, "format": "csv"}
    )
    assert (tmp_path / "result.csv").read_bytes() == answer.content
    assert len(answer.content.splitlines()) == 2501


def test_a_query_can_be_cancelled(look: Look) -> None:
    page = look()
    page.fill("#sql", "select count(*) from range(10_000_000_000) a(n) where n % 7 = 3")
    page.click("#run")
    page.wait_for_selector("#cancel:not([hidden])")
    page.click("#cancel")
    until(page, "document.querySelector('#result-summary').textContent === 'Cancelled.'")
    run(page, "select 1 as one")
    assert cells(page) == [["1"]]


def test_the_history_stays_in_the_browser(look: Look) -> None:
    page = look()
    run(page, "select 1 as one")
    run(page, "select broken")
    page.reload()
    page.wait_for_selector("#board:not([hidden])")
    page.click("#history-box summary")
    assert page.locator("#history code").all_inner_texts() == ["select broken", "select 1 as one"]
    assert page.locator("#history .muted").all_inner_texts()[0].startswith("failed, ")
    page.locator("#history button").nth(1).click()
    page.wait_for_selector("#result-table td")
    assert page.input_value("#sql") == "select 1 as one"
    page.click("#history-clear")
    assert page.inner_text("#history") == "No query yet."


def test_the_examples_run(look: Look) -> None:
    page = look()
    for name in page.locator("#examples button").all_inner_texts():
        page.get_by_role("button", name=name).click()
        until(page, "document.querySelector('#result-summary').textContent.includes(' rows, in ')")
        assert page.inner_text("#sql-error") == ""
        page.evaluate("document.querySelector('#result-summary').textContent = ''")
