"""What verbs that talk to a running stack share: where it is, and a token of its own."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dc_platform.cli.options import settings_of
from dc_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from dc_platform.registry.tokens import Scope
    from dc_platform.settings import Settings


def stack_info(data_dir: Path) -> dict[str, Any]:
    """The content of DIR/stack.json."""
    path = data_dir / "stack.json"
    try:
        info: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigurationError(
            f"no stack in {data_dir}: start one with `dcp up --data-dir {data_dir}`"
        ) from None
    return info


def stack_or_environment(data_dir: Path | None, *, required: bool = True) -> Settings:
    """The settings of the stack in the directory when there is one, else of the environment.

    Raises ConfigurationError when a directory is named that has none, and one is required.
    """
    configured = settings_of(data_dir)
    try:
        info = stack_info(configured.data_dir)
    except ConfigurationError:
        if data_dir is not None and required:
            raise
        return configured
    return settings_of(
        configured.data_dir,
        kafka_bootstrap=info["kafka"],
        topic=info["topic"],
        lake_uri=info["lake"],
    )


def trino_url(settings: Settings) -> str:
    """Base URL of the Trino to ask: that of the settings, else the stack's."""
    url = settings.trino_url
    if not url:
        with suppress(ConfigurationError):
            url = stack_info(settings.data_dir).get("trino") or ""
    if not url:
        raise ConfigurationError(
            "there is no Trino: start a stack that has one (dcp up --with trino), or name one of your"
            " own in DCP_TRINO_URL"
        )
    return url.rstrip("/")


def local_token(data_dir: Path, scope: Scope) -> str:
    """A token for this machine's user, made once per data directory and kept readable only to them.

    Who may read the registry's file may do anything anyway; the token only saves a step.
    """
    from dc_platform.registry.database import opened
    from dc_platform.registry.tokens import Tokens
    from dc_platform.settings import Settings

    path = data_dir / "secrets" / f"cli-{scope.value}.token"
    with opened(Settings(data_dir=data_dir).registry) as database:
        tokens = Tokens(database)
        if path.exists():
            token = path.read_text().strip()
            if tokens.owner_of(token) is not None:
                return token
        token = tokens.create(scope)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(token)
    return token
