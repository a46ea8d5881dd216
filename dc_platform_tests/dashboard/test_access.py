"""Who gets in and how; keyboard, themes, phone; what the page may not do."""

from __future__ import annotations

from typing import Any

import pytest

from dc_platform_tests.dashboard.conftest import Look, until
from dc_platform_tests.helpers.serving_http import Door

STORED = "[sessionStorage.getItem('dcp.token'), localStorage.getItem('dcp.token')]"


def sign_in(page: Any, token: str) -> None:
    page.fill("#token", token)
    page.keyboard.press("Enter")


def test_without_a_token_it_says_how_to_get_one(look: Look) -> None:
    page = look(signed_in=False)
    assert "dcp dashboard" in page.inner_text("#sign-in")
    assert "dcp token create --scope query" in page.inner_text("#sign-in")
    assert page.evaluate("document.activeElement.id") == "token"
    assert not page.is_visible("#board")


def test_a_wrong_token_is_refused_in_place(look: Look, door: Door) -> None:
    page = look(signed_in=False)
    sign_in(page, "dct_wrong")
    until(page, "document.querySelector('#sign-in-error').textContent !== ''")
    assert "not known or was revoked" in page.inner_text("#sign-in-error")
    assert page.get_attribute("#token", "aria-invalid") == "true"
    assert page.evaluate(STORED) == [None, None]
    sign_in(page, door.token)
    page.wait_for_selector("#board:not([hidden])")


def test_a_link_signs_in_and_leaves_no_trace(look: Look, door: Door) -> None:
    page = look()
    assert page.url == f"{door.url}/dashboard/"
    assert page.evaluate(STORED) == [door.token, None]
    assert page.context.cookies() == []
    page.click("#sign-out")
    assert page.is_visible("#sign-in")
    assert page.evaluate(STORED) == [None, None]
    page.go_back()
    assert door.token not in page.url


def test_staying_signed_in_is_chosen(look: Look, door: Door) -> None:
    page = look(signed_in=False)
    page.check("#remember")
    sign_in(page, door.token)
    page.wait_for_selector("#board:not([hidden])")
    other = page.context.new_page()
    other.goto(f"{door.url}/")
    other.wait_for_selector("#board:not([hidden])")


def test_a_token_that_dies_ends_the_session(
    look: Look, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = look()
    monkeypatch.setattr(door.app.state.tokens, "remembered", lambda _: (False, None))
    monkeypatch.setattr(door.app.state.tokens, "owner_of", lambda token: None)
    page.wait_for_selector("#sign-in:not([hidden])")
    assert "Sign in with another token" in page.inner_text("#sign-in-error")
    assert page.evaluate(STORED) == [None, None]


def test_no_other_script_runs(look: Look) -> None:
    page = look()
    page.evaluate("""() => {
        window.refused = [];
        addEventListener('securitypolicyviolation', (e) => refused.push(e.effectiveDirective));
        const inline = document.createElement('script');
        try { inline.text = 'window.ran = 1'; } catch { refused.push('trusted types'); }
        document.body.append(inline);
        const image = new Image();
        image.src = 'data:image/png;base64,AAAA';
        try { document.body.innerHTML += '<b>x</b>'; } catch { refused.push('html'); }
        fetch('https://example.org/').catch(() => refused.push('fetch'));
    }""")
    until(page, "refused.includes('fetch')")
    refused = page.evaluate("refused")
    assert {"html", "img-src", "connect-src"} <= set(refused)
    assert page.evaluate("window.ran") is None


# --- keyboard ---

FOCUS = """() => {
    const node = document.activeElement;
    const shown = node.matches('.segmented input') ? node.nextElementSibling : node;
    const style = getComputedStyle(shown);
    const all = [...document.querySelectorAll('*')];
    return {
        place: all.indexOf(node),
        name: node.id || node.name || node.className || node.textContent.trim().slice(0, 30),
        visible: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
        labelled: Boolean(node.getAttribute('aria-label') || node.labels?.length
            || node.textContent.trim() || node.getAttribute('aria-labelledby')),
    };
}"""


def test_every_control_is_reached_in_order_with_a_visible_focus(look: Look) -> None:
    page = look()
    page.wait_for_selector("#tables tbody tr")
    seen: list[dict[str, Any]] = []
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        seen.append(page.evaluate(FOCUS))
    places = [focus["place"] for focus in seen]
    assert places == sorted(places)
    assert [focus["name"] for focus in seen if not focus["visible"]] == []
    assert [focus["name"] for focus in seen if not focus["labelled"]] == []
    names = {focus["name"] for focus in seen}
    assert names >= {"window", "pause", "theme", "sign-out", "rate-by", "alerts", "sql", "run"}
    assert sum(focus["name"] == "plot" for focus in seen) == 3


def test_a_session_by_keyboard_alone(look: Look, door: Door) -> None:
    page = look(signed_in=False)
    page.keyboard.type(door.token)
    page.keyboard.press("Enter")
    page.wait_for_selector("#board:not([hidden])")
    until(page, "document.activeElement.id === 'main'")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "rate-by":
            break
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#chart-rate .legend span:has-text('all sources')")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "plot"
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert "all sources" in page.inner_text("#chart-rate [role=status]")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "sql":
            break
    page.keyboard.press("Control+A")
    page.keyboard.type("select 'by hand' as said")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#result-table td:has-text('by hand')")
    # The focus stays in the text: the next try is one key away.
    assert page.evaluate("document.activeElement.id") == "sql"


# --- themes, phone ---

BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def brightness(page: Any) -> float:
    numbers = page.evaluate(BACKGROUND).removeprefix("rgb(").removesuffix(")").split(",")
    return sum(map(int, numbers)) / 3


def test_dark_by_the_system_and_by_the_switch(look: Look) -> None:
    page = look(color_scheme="dark")
    assert brightness(page) < 60
    page.select_option("#theme", "light")
    assert brightness(page) > 200
    page.reload()
    page.wait_for_selector("#board:not([hidden])")
    assert brightness(page) > 200
    assert page.input_value("#theme") == "light"
    page.select_option("#theme", "auto")
    assert brightness(page) < 60
    page.emulate_media(color_scheme="light")
    assert brightness(page) > 200


@pytest.mark.parametrize("width", [320, 375, 768])
def test_on_a_small_screen_nothing_is_beside_it(look: Look, width: int) -> None:
    page = look(width=width)
    page.wait_for_selector("#tables tbody tr")
    page.fill("#sql", "select repeat('wide ', 60) as a, repeat('x', 300) as b, 3 as n")
    page.click("#run")
    page.wait_for_selector("#result-table td")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.click("#sign-out")
    assert page.evaluate("document.documentElement.scrollWidth") == width
