"""Serving with a few minutes of events, some of them hostile, and a browser that looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dc_platform.registry.sources import SourceType
from dc_platform_tests.helpers.browser import chromium
from dc_platform_tests.helpers.recent import Recent
from dc_platform_tests.helpers.serving_http import Door
from dc_platform_tests.stack.harness import wait_for

MINUTE = 60_000
# What a page that takes texts for HTML would run.
HOSTILE = (
    '<img src=x onerror="window.pwned = 1">',
    "</code></td><script>window.pwned = 1</script>",
    "\"'><svg onload=window.pwned=1>",
    "{{constructor.constructor('window.pwned = 1')()}}",
)

Look = Callable[..., Any]


def until(page: Any, expression: str) -> None:
    """Wait until an expression holds. (Playwright itself evaluates texts in the page, which the
    page's policy forbids.)
    """

    def holds() -> bool:
        page.wait_for_timeout(30)
        return bool(page.evaluate(expression))

    wait_for(holds, 20)


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="package")
def door(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    recent = Recent(tmp_path_factory.mktemp("dashboard"))
    made = Door(recent)
    names = ("checkout", "sensors", HOSTILE[0])
    sources = [made.sources.create(name, SourceType.SERVER)[0].source_id for name in names]
    rows = [
        recent.event(ago, 900 + ago % 700, source=source, kind=kind, partition=n % 2)
        for n, (source, kind) in enumerate(zip(sources, ("order", "reading", "view"), strict=True))
        for ago in range(12_000 + n, 10 * MINUTE, 500 * (n + 1))
    ]
    rows += [recent.event(11_000, kind=text) for text in HOSTILE]
    rows += [recent.event(40 * MINUTE, kind="an hour ago")]
    recent.land(rows)
    recent.wait([recent.event(9_000, None, source=sources[0], kind="order")] * 1234)
    recent.reject(range(20_000, 30_000, 1000), "missing_field")
    recent.reject([30_000], HOSTILE[0])
    recent.balance(received=1, landed=1)
    made.tail.view = recent.look()
    with made.open():
        yield made


@pytest.fixture
def look(browser: Any, door: Door) -> Iterator[Look]:
    """Opens the dashboard in a context of its own; at the end nothing went wrong in it, and it talked
    to serving alone.
    """
    contexts: list[Any] = []
    wrong: list[str] = []

    def opened(*, signed_in: bool = True, width: int = 1280, **options: Any) -> Any:
        # A host without a locale gives browsers a language that none understands: en-US@posix.
        context = browser.new_context(
            viewport={"width": width, "height": 900}, locale="en-US", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: r.url.startswith((door.url, "blob:")) or wrong.append(r.url))
        page.goto(f"{door.url}/{f'#token={door.token}' if signed_in else ''}")
        if signed_in:
            page.wait_for_selector("#board:not([hidden])")
            until(page, "document.querySelector('#tile-rate .big').textContent !== '–'")
        return page

    yield opened
    for context in contexts:
        for page in context.pages:
            assert page.evaluate("window.pwned") is None
        context.close()
    assert wrong == []
