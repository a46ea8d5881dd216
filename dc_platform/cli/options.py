"""Options that several verbs have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dc_platform.settings import Settings

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Directory of the stack; default: DCP_DATA_DIR or .dcp."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Extra(StrEnum):
    """Parts that are started on demand."""

    TRINO = "trino"


def settings_of(data_dir: Path | None, **more: Any) -> Settings:
    """The settings of the environment, with `--data-dir` and `more` on top."""
    from pydantic import ValidationError

    from dc_platform.errors import ConfigurationError
    from dc_platform.settings import Settings

    try:
        return Settings(**more) if data_dir is None else Settings(data_dir=data_dir, **more)
    except ValidationError as error:
        wrong = (f"DCP_{e['loc'][0]}".upper() + f": {e['msg']}" for e in error.errors())
        raise ConfigurationError("; ".join(wrong)) from error
