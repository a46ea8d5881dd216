"""The docs are true: every setting, verb, option, table, column, endpoint and reason is in them, and
the files that they name exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from dc_platform import reference
from dc_platform.cli.main import app
from dc_platform.gateway.app import create_app as gateway_app
from dc_platform.orchestration.checks import CHECKS
from dc_platform.serving.app import create_app as serving_app
from dc_platform.settings import Settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text() == reference.PAGES[name](), "run make docs"


def verbs(command: Any, path: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Verb → its long options. `command` is typer's own or click's, as the version has it."""
    if members := getattr(command, "commands", None):
        found: dict[str, list[str]] = {}
        for name, member in members.items():
            if not member.hidden:
                found |= verbs(member, (*path, name))
        return found
    options = [o for p in command.params for o in p.opts if o.startswith("--")]
    return {" ".join(path): options}


_EVERYWHERE = {"--data-dir", "--json", "--help"}


@pytest.mark.parametrize(
    ("verb", "options"),
    sorted(verbs(typer.main.get_command(app)).items()),
    ids=lambda v: str(v)[:30],
)
def test_every_verb_and_option_is_documented(verb: str, options: list[str]) -> None:
    page = (DOCS / "cli.md").read_text()
    rows = [line for line in page.splitlines() if f"`dcp {verb}" in line]
    assert rows, f"docs/cli.md does not have dcp {verb}"
    for option in set(options) - _EVERYWHERE:
        assert any(option in row for row in rows), f"docs/cli.md does not have {option} of {verb}"


def test_every_documented_verb_exists() -> None:
    known = verbs(typer.main.get_command(app))
    assert "source create" in known
    groups = {verb.split()[0] for verb in known}
    pages = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    for page in pages:
        for named in re.findall(r"`dcp ([a-z-]+(?: [a-z-]+)?)", page.read_text()):
            assert named in known or named.split()[0] in groups, f"{page.name} names dcp {named}"


def endpoints() -> set[str]:
    settings = Settings()
    found = set()
    for application in (gateway_app(settings), serving_app(settings)):
        for path, methods in application.openapi()["paths"].items():
            found |= {f"{method.upper()} {path}" for method in methods}
    return found


@pytest.mark.parametrize("endpoint", sorted(endpoints()))
def test_every_endpoint_is_documented(endpoint: str) -> None:
    page = (DOCS / "api.md").read_text().replace("{sourceId}", "{source_id}")
    assert f"`{endpoint}`" in page


def test_every_documented_endpoint_exists() -> None:
    page = (DOCS / "api.md").read_text().replace("{sourceId}", "{source_id}")
    named = set(re.findall(r"`((?:GET|POST|PUT|DELETE) /[^`]*)`", page))
    assert named <= endpoints()


@pytest.mark.parametrize("page", ["architecture.md", "api.md"])
def test_files_that_are_named_exist(page: str) -> None:
    for named in re.findall(r"`([a-z_0-9/]+\.py)`", (DOCS / page).read_text()):
        places = [ROOT / "dc_platform" / named, ROOT / "dc_platform_tests" / named, ROOT / named]
        assert any(place.is_file() for place in places), f"{page} names {named}"


def test_tests_that_are_named_exist() -> None:
    named = re.findall(r"`([a-z_0-9/]+\.py)::(\w+)`", (DOCS / "faults.md").read_text())
    assert len(named) > 30
    for file, function in named:
        text = (ROOT / "dc_platform_tests" / file).read_text()
        assert f"\ndef {function}(" in text, f"docs/faults.md names {file}::{function}"


def test_every_check_is_documented() -> None:
    texts = "".join(page.read_text() for page in DOCS.glob("*.md"))
    for check in CHECKS:
        for key in check.check_keys:
            assert key.name in texts, f"no page names the check {key.name}"
