"""What a stack consists of: the command of each part, how to see that it is ready, what it needs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dc_platform
from dc_platform.errors import FatalError
from dc_platform.priority import BEHIND
from dc_platform.settings import Settings
from dc_platform.stack import probes
from dc_platform.stack.kafka import LocalKafka
from dc_platform.stack.ports import HOST
from dc_platform.stack.processes import STACK_VARIABLE
from dc_platform.stack.record import StackDirectory

# Parts end from the highest stage down; those of one stage end together.
STORES, DOORS, CODE, CONTROL = range(4)
# What the broker says at DEBUG is of use to nobody here.
_KAFKA_LEVELS = {"WARNING": "WARN", "ERROR": "ERROR"}
DEFINITIONS = "dc_platform.definitions"
LOCATION = "dc_platform"


@dataclass(frozen=True)
class Part:
    """One process of a stack.

    `prepare` is called before each start and gives the command. `needs` names parts that must be
    ready before. `settle` is how long it must have lived to count as ready. `nice` is the
    niceness of its session.
    """

    name: str
    prepare: Callable[[], Sequence[str]]
    is_ready: Callable[[], bool]
    where: str
    stage: int
    needs: tuple[str, ...] = ()
    grace: float = 20.0
    settle: float = 0.0
    nice: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


def stack_parts(
    directory: StackDirectory,
    settings: Settings,
    ports: Mapping[str, int],
    *,
    with_trino: bool = False,
) -> list[Part]:
    """The parts in the order in which they are shown and started."""
    kafka = LocalKafka(
        directory.kafka,
        ports["kafka"],
        ports["kafka_controller"],
        log=directory.log("kafka"),
        log_level=_KAFKA_LEVELS.get(settings.log_level, "INFO"),
    )
    parts = [
        Part(
            "kafka",
            kafka.prepare,
            kafka.answers,
            where=kafka.bootstrap,
            stage=STORES,
            grace=30.0,
        ),
        _door("gateway", "dc_platform.gateway", ports["gateway"], status="healthy"),
        _door("serving", "dc_platform.serving", ports["serving"]),
        *_dagster_parts(directory, ports),
    ]
    if with_trino:
        from dc_platform.stack.trino import LocalTrino

        trino = LocalTrino(
            directory.trino,
            ports["trino"],
            lake=settings.lake,
            bootstrap=kafka.bootstrap,
            topic=settings.topic,
            late_ms=settings.late_ms,
            log=directory.log("trino"),
        )
        parts.append(
            Part(
                "trino",
                trino.prepare,
                trino.answers,
                where=trino.url,
                stage=CONTROL,
                grace=15.0,
                nice=BEHIND,
            )
        )
    return parts


def stack_settings(directory: StackDirectory) -> Settings:
    """The settings of the environment, nothing in them relative to the working directory.

    The parts run in the data directory: what the caller meant relative to his own must not move.
    """
    settings = Settings(data_dir=directory.path)
    changed = {}
    if settings.lake_uri and "://" not in settings.lake_uri:
        changed["lake_uri"] = str(Path(settings.lake_uri).absolute())
    file = settings.registry_url.removeprefix("sqlite:///")
    if file and file != settings.registry_url:
        changed["registry_url"] = f"sqlite:///{Path(file).absolute()}"
    return settings.model_copy(update=changed)


def part_environment(
    directory: StackDirectory, settings: Settings, ports: Mapping[str, int]
) -> dict[str, str]:
    """The environment of every part: the caller's, and what ties the parts together."""
    environment = {
        **os.environ,
        "DCP_DATA_DIR": str(directory.path),
        "DCP_KAFKA_BOOTSTRAP": f"{HOST}:{ports['kafka']}",
        "DCP_TOPIC": settings.topic,
        STACK_VARIABLE: directory.stack_id,
        "DAGSTER_HOME": str(directory.dagster),
        "DAGSTER_SQLITE_DIR": str(directory.dagster / "storage"),
        "PYTHONUNBUFFERED": "1",
    }
    if settings.lake_uri:
        environment["DCP_LAKE_URI"] = settings.lake_uri
    if settings.registry_url:
        environment["DCP_REGISTRY_URL"] = settings.registry_url
    return environment


def prepare_dagster(directory: StackDirectory, ports: Mapping[str, int]) -> None:
    """Write Dagster's home: the instance's settings, and where the code server is."""
    (directory.dagster / "storage").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(instance_settings(), directory.dagster / "dagster.yaml")
    _workspace(directory).write_text(
        "# Written at each start.\n"
        "load_from:\n"
        "  - grpc_server:\n"
        f"      host: {HOST}\n"
        f"      port: {ports['code_server']}\n"
        f"      location_name: {LOCATION}\n"
    )


def _door(name: str, module: str, port: int, **expected: str) -> Part:
    command = [*_python(module), "--host", HOST, "--port", str(port)]
    return Part(
        name,
        lambda: command,
        lambda: probes.http_answers(HOST, port, "/healthz", **expected),
        where=f"http://{HOST}:{port}",
        stage=DOORS,
    )


def _dagster_parts(directory: StackDirectory, ports: Mapping[str, int]) -> list[Part]:
    code, web = ports["code_server"], ports["dagster_webserver"]
    workspace = str(_workspace(directory))
    code_server = [
        *_python("dagster", "api", "grpc", "--host", HOST, "--port", str(code)),
        *("--module-name", DEFINITIONS, "--location-name", LOCATION),
        # Its run workers are then this interpreter, whatever PATH says.
        "--use-python-environment-entry-point",
    ]
    daemon = [*_python("dagster._daemon", "run", "-w", workspace)]
    webserver = [*_python("dagster_webserver", "-h", HOST, "-p", str(web), "-w", workspace)]
    return [
        Part(
            "code_server",
            lambda: code_server,
            # It opens the port after it has loaded the definitions.
            lambda: probes.port_answers(HOST, code),
            where=f"{HOST}:{code}",
            stage=CODE,
            # Its run workers finish the commit that they are at.
            grace=40.0,
            # Its runs begin with it: loading the code takes a run three seconds of a core.
            nice=BEHIND,
        ),
        Part(
            "dagster_daemon",
            lambda: daemon,
            lambda: True,
            where="",
            stage=CONTROL,
            # A daemon that finds no code server looks again after a minute.
            needs=("code_server",),
            settle=3.0,
            nice=BEHIND,
        ),
        Part(
            "dagster_webserver",
            lambda: webserver,
            lambda: probes.http_answers(HOST, web, "/server_info"),
            where=f"http://{HOST}:{web}",
            stage=CONTROL,
            needs=("code_server",),
            nice=BEHIND,
        ),
    ]


def _python(module: str, *arguments: str) -> list[str]:
    # -P: the working directory is no place to import from; it has folders named dagster and kafka.
    return [sys.executable, "-P", "-m", module, *arguments]


def _workspace(directory: StackDirectory) -> Path:
    return directory.dagster / "workspace.yaml"


def instance_settings() -> Path:
    """Where this installation has its dagster.yaml."""
    package = Path(dc_platform.__file__).parent
    for candidate in (package / "orchestration" / "dagster.yaml", package.parent / "dagster.yaml"):
        if candidate.is_file():
            return candidate
    raise FatalError("dagster.yaml is missing from this installation")
