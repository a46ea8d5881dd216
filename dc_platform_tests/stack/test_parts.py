"""What the parts of a stack are told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dc_platform.settings import Settings
from dc_platform.stack.parts import (
    part_environment,
    prepare_dagster,
    stack_parts,
    stack_settings,
)
from dc_platform.stack.ports import DEFAULT_PORTS
from dc_platform.stack.record import StackDirectory


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackDirectory:
    monkeypatch.chdir(tmp_path)
    return StackDirectory(Path("data"))


def test_the_environment_ties_the_parts_together(
    directory: StackDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCP_KAFKA_BOOTSTRAP", "elsewhere:9092")
    monkeypatch.setenv("DCP_TOPIC", "mine")
    monkeypatch.setenv("DCP_LANDING_SLOTS", "3")
    monkeypatch.setenv("DAGSTER_HOME", "/elsewhere")
    environment = part_environment(
        directory, stack_settings(directory), {**DEFAULT_PORTS, "kafka": 1234}
    )
    data = str(directory.path)
    assert Path(data).is_absolute()
    assert environment["DCP_DATA_DIR"] == data
    # The stack's own broker, whatever the caller's settings say; his other settings hold.
    assert environment["DCP_KAFKA_BOOTSTRAP"] == "127.0.0.1:1234"
    assert environment["DCP_TOPIC"] == "mine"
    assert environment["DCP_LANDING_SLOTS"] == "3"
    assert environment["DCP_STACK_ID"] == directory.stack_id
    assert environment["DAGSTER_HOME"] == f"{data}/dagster"
    assert environment["DAGSTER_SQLITE_DIR"] == f"{data}/dagster/storage"
    assert "DCP_LAKE_URI" not in environment


def test_relative_paths_of_the_caller_stay_where_he_meant_them(
    directory: StackDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DCP_LAKE_URI", "my/lake")
    monkeypatch.setenv("DCP_REGISTRY_URL", "sqlite:///my/registry.db")
    settings = stack_settings(directory)
    environment = part_environment(directory, settings, DEFAULT_PORTS)
    assert environment["DCP_LAKE_URI"] == settings.lake == str(tmp_path / "my/lake")
    registry = f"sqlite:///{tmp_path / 'my/registry.db'}"
    assert environment["DCP_REGISTRY_URL"] == settings.registry == registry


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DCP_LAKE_URI", "/var/lake"),
        ("DCP_REGISTRY_URL", "postgresql+psycopg://user@host/db"),
        ("DCP_REGISTRY_URL", "sqlite:////var/registry.db"),
    ],
)
def test_what_is_absolute_is_left_alone(
    directory: StackDirectory, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    environment = part_environment(directory, stack_settings(directory), DEFAULT_PORTS)
    assert environment[variable] == value


def test_dagsters_home(directory: StackDirectory) -> None:
    prepare_dagster(directory, {**DEFAULT_PORTS, "code_server": 1234})
    project = Path(__file__).parents[2] / "dagster.yaml"
    assert (directory.dagster / "dagster.yaml").read_text() == project.read_text()
    assert yaml.safe_load((directory.dagster / "workspace.yaml").read_text()) == {
        "load_from": [
            {"grpc_server": {"host": "127.0.0.1", "port": 1234, "location_name": "dc_platform"}}
        ]
    }


def test_parts_need_only_parts_that_end_after_them(directory: StackDirectory) -> None:
    parts = {
        part.name: part
        for part in stack_parts(directory, Settings(), DEFAULT_PORTS, with_trino=True)
    }
    assert set(parts) == {
        *("kafka", "gateway", "serving", "code_server", "dagster_daemon", "dagster_webserver"),
        "trino",
    }
    for part in parts.values():
        assert all(parts[need].stage < part.stage for need in part.needs)
    # Kafka ends last, so that everybody can write what he has.
    assert [part.name for part in parts.values() if part.stage == 0] == ["kafka"]
    # Landing is given half a minute and more for its last commit.
    assert parts["code_server"].grace >= 30
