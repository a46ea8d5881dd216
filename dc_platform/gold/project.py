"""Where the dbt project is, and what its models are: when they change, gold is built anew."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import dc_platform
from dc_platform.errors import FatalError

# What decides about rows. The tests and descriptions do not.
_MODELS = ("macros/*.sql", "models/**/*.sql")


@cache
def project_directory() -> Path:
    """The dbt project of this installation."""
    package = Path(dc_platform.__file__).parent
    for candidate in (package / "gold" / "dbt_project", package.parent / "dbt_project"):
        if (candidate / "dbt_project.yml").is_file():
            return candidate
    raise FatalError("the dbt project is missing from this installation")


@cache
def models_hash() -> str:
    """Changes when a model does."""
    digest = hashlib.sha256()
    root = project_directory()
    for path in sorted(path for pattern in _MODELS for path in root.glob(pattern)):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
