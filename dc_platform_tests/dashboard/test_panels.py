"""Each panel shows what serving says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from dc_platform_tests.dashboard.conftest import HOSTILE, Look, until
from dc_platform_tests.helpers.recent import Recent
from dc_platform_tests.helpers.serving_http import Door


def held(page: Any) -> Any:
    """What serving said last to the page, which asks no more: as time goes events leave its window."""
    asked: list[Any] = []
    page.on("request", lambda request: "/overview" in request.url and asked.append(request))
    page.click("#pause")
    until(page, "document.querySelector('#state').dataset.state === 'paused'")
    return asked[-1].response().json()


def texts(page: Any, selector: str) -> list[str]:
    found: list[str] = page.locator(selector).all_inner_texts()
    return found


@pytest.fixture
def as_before(door: Door) -> Iterator[None]:
    """Puts serving back to where it was."""
    view = door.tail.view
    yield
    door.tail.view, door.tail.kafka_answers = view, True


def test_the_figures_of_now(look: Look) -> None:
    page = look()
    assert page.inner_text("#state-text").startswith("Live, ")
    said = held(page)
    shown = re.findall(r"[\d.]+", page.inner_text("#tile-rate"))
    rates = [said["received"][name] for name in ("current", "avg", "max")]
    assert [float(text) for text in shown] == pytest.approx(rates, abs=0.5)
    assert page.inner_text("#tile-lag .big") == "1,234"
    assert page.inner_text("#tile-rejected .sub") == (
        f"11 rejected, {said['received']['events']:,} accepted"
    )
    assert page.inner_text("#tile-latency .big") == f"{said['latency']['p99'] / 1000:.1f} s"
    assert page.inner_text("#tile-fresh .sub") == "silver is at version 1"
    assert page.inner_text("#tile-fresh .big").endswith(" old")


def test_the_rate_by_source_and_in_total(look: Look) -> None:
    page = look()
    assert page.locator("#chart-rate canvas").count() == 1
    names = texts(page, "#chart-rate .legend span")
    assert names[:3] == ["checkout", "sensors", HOSTILE[0]]
    assert "now " in page.get_attribute("#chart-rate .plot", "aria-label")
    page.get_by_text("Total", exact=True).click()
    assert texts(page, "#chart-rate .legend span")[0] == "all sources"


def test_lag_by_partition(look: Look) -> None:
    page = look()
    assert texts(page, "#partitions li") == ["partition 0\n1,234", "partition 1\n0"]
    assert "now 1,234" in page.get_attribute("#chart-lag .plot", "aria-label")
    assert page.inner_text("#border").startswith("version 1, landed ")


def test_latency(look: Look) -> None:
    page = look()
    assert page.locator("#chart-latency canvas").count() == 1
    latency = held(page)["latency"]
    p50, p99 = (latency[name] / 1000 for name in ("p50", "p99"))
    assert page.inner_text("#latency-sub") == f"p50 {p50:.1f} s, p99 {p99:.1f} s"


def test_the_largest_types_sources_and_reasons(look: Look) -> None:
    page = look()
    said = held(page)
    for name, key in (("types", "eventType"), ("sources", "name")):
        rows = {"types": said["eventTypes"], "sources": said["sources"]}[name]
        assert texts(page, f"#{name} .bar-name") == [row[key] or row["sourceId"] for row in rows]
        assert texts(page, f"#{name} .bar-value") == [f"{row['events']:,}" for row in rows]
    assert texts(page, "#reasons .bar-name") == ["missing_field", HOSTILE[0]]
    assert texts(page, "#reasons .bar-note")[0] == "Add the field that the message names."


def test_health_and_alerts(look: Look, door: Door, as_before: None) -> None:
    page = look()
    assert texts(page, "#components .badge") == ["healthy"] * 3
    assert "balances" in page.inner_text("#alerts")
    door.tail.kafka_answers = False
    page.wait_for_selector("#alerts .alert")
    assert "Kafka does not answer" in page.inner_text("#alerts")
    assert page.inner_text("#state-text").startswith("Unhealthy. ")
    # Told to those who do not see it, once.
    assert page.inner_text("#announce").startswith("Unhealthy. ")


def test_an_hour_that_does_not_balance_is_an_alert(look: Look, door: Door) -> None:
    assert isinstance(door.served, Recent)
    door.served.balance(tenant_id="wronged", received=3, landed=1, missing=2)
    page = look(signed_in=False)
    page.fill("#token", door.token_of("wronged"))
    page.keyboard.press("Enter")
    page.wait_for_selector("#alerts [data-severity=CRITICAL]")
    assert "missing" in page.inner_text("#alerts")
    assert "dcp audit" in page.inner_text("#alerts")


def test_tables_and_a_look_at_one(look: Look, door: Door) -> None:
    page = look()
    page.wait_for_selector("#tables tbody tr")
    answer = httpx.get(f"{door.url}/api/v1/monitoring/tables", headers=door.headers).json()
    sizes = {table["table"]: table for table in answer["tables"]}
    assert texts(page, "#tables th > code") == list(sizes)
    silver = page.locator("#tables tr", has_text="silver.events")
    own = sizes["silver.events"]
    figures = silver.locator("td").all_inner_texts()
    assert (figures[0], figures[2]) == (f"{own['rows']:,}", str(own["files"]))
    assert figures[1] == f"{round(own['bytes'] / 1000, 1):g} KB"
    # What a description has in backticks is code.
    assert page.locator("#tables .muted code").first.inner_text() == "result"
    page.get_by_role("button", name="Look at silver.quarantine").click()
    page.wait_for_selector("#result-table td")
    assert page.input_value("#sql") == "select * from silver.quarantine limit 100"
    assert page.inner_text("#result-summary").startswith("11 rows")


def test_another_window(look: Look) -> None:
    page = look()
    assert "an hour ago" not in texts(page, "#types .bar-name")
    page.get_by_text("1 hour", exact=True).click()
    page.wait_for_selector("#types .bar-name:has-text('an hour ago')")


def test_it_follows_and_nothing_moves(look: Look, door: Door, as_before: None) -> None:
    page = look()
    page.wait_for_selector("#tables tbody tr")
    places = """[...document.querySelectorAll('section, h2, .plot, .tiles > div, button, #components')]
        .map((node) => [node.id || node.className, JSON.stringify(node.getBoundingClientRect())])"""
    before = page.evaluate(places)
    assert isinstance(door.served, Recent)
    chunk = door.served.event(8_500, None, source="a new source", kind="a new type" * 30)
    door.served.wait([chunk] * 8_766)
    door.tail.view = door.served.look()
    until(page, "document.querySelector('#tile-lag .big').textContent === '10,000'")
    assert page.evaluate(places) == before


def test_pause_holds_the_figures(look: Look) -> None:
    page = look()
    asked: list[str] = []
    page.click("#pause")
    until(page, "document.querySelector('#state').dataset.state === 'paused'")
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2_500)
    assert asked == []
    page.click("#pause")
    until(page, "document.querySelector('#state').dataset.state === 'healthy'")


def test_a_view_that_is_not_complete_says_so(look: Look, door: Door, as_before: None) -> None:
    page = look()
    door.tail.view = replace(door.tail.view, complete=False, up_to_ms=1_700_000_000_000)
    page.wait_for_selector("#notice:has-text('has not caught up with Kafka')")
    page.wait_for_selector("#components [data-state=degraded]")


def test_serving_that_starts_is_waited_for(look: Look, door: Door, as_before: None) -> None:
    page = look()
    view, door.tail.view = door.tail.view, None
    page.wait_for_selector("#notice:has-text('Serving is starting.')")
    assert page.inner_text("#tile-lag .big") != "–"
    door.tail.view = view
    page.wait_for_selector("#notice", state="hidden")


def test_serving_that_is_gone_is_said_with_what_to_do(look: Look) -> None:
    page = look()
    page.context.set_offline(True)
    page.wait_for_selector("#notice:has-text('dcp status')")
    assert page.inner_text("#state-text") == "No answer"
    page.context.set_offline(False)
    page.wait_for_selector("#notice", state="hidden")


def test_a_lake_without_events_says_how_to_send_one(look: Look, door: Door) -> None:
    page = look(signed_in=False)
    page.fill("#token", door.token_of("nobody"))
    page.keyboard.press("Enter")
    page.wait_for_selector("#board:not([hidden])")
    assert "Your own events" in page.inner_text("#chart-rate .empty")
    assert page.inner_text("#tile-fresh .big") == "none"
    assert "checkout" not in page.inner_text("body")
