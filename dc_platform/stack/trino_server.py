"""Trino's programs: downloaded once, and of 1.5 GB the part unpacked that the platform uses.

Invariant: the directory that `installed` gives is complete; it is unpacked beside its place and
moved there whole.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import platformdirs
from filelock import FileLock

from dc_platform.errors import ConfigurationError
from dc_platform.stack.artifacts import Pin, fetch
from dc_platform.stack.downloads import line

VERSION = "476"
PIN = Pin(
    "io.trino",
    "trino-server",
    VERSION,
    "cfd5accde17e8ebd251eeeb78aed1f490e77bb3a164d95a0f454bf8a7c1cbd3f",
    packaging="tar.gz",
)
KEPT = ("lib", "bin", "plugin/delta-lake", "plugin/kafka")


def installed(cache: Path | None = None) -> Path:
    """The directory of the programs, in the user's cache."""
    cache = cache or platformdirs.user_cache_path("dc-platform")
    target = cache / f"trino-{VERSION}"
    if target.is_dir():
        return target
    (archive,) = fetch("Trino", [PIN])
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / ".lock"):
            if not target.is_dir():
                line("Trino", "unpacking")
                unpack(archive, target)
    except OSError as error:
        raise ConfigurationError(f"cannot unpack Trino into {cache}: {error}") from error
    return target


def unpack(archive: Path, target: Path) -> None:
    """Unpack what is in `KEPT`.

    A file there may be a hard link to one in another directory: those are unpacked too, for a while
    (else tarfile reads the whole archive from its start for each of a hundred links).
    """
    scratch = target.with_name(f".{target.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    with tarfile.open(archive) as tar:
        linked = {member.linkname for member in tar if member.islnk() and _is_kept(member.name)}
    with tarfile.open(archive) as tar:
        for member in tar:
            if _is_kept(member.name) or member.name in linked:
                tar.extract(member, scratch, filter="data")
    (root,) = scratch.iterdir()
    for folder in [*root.iterdir(), *(root / "plugin").iterdir()]:
        name = str(folder.relative_to(root))
        if name not in KEPT and name != "plugin":
            shutil.rmtree(folder)
    root.replace(target)
    scratch.rmdir()


def _is_kept(name: str) -> bool:
    _root, _, inside = name.partition("/")
    return any(inside == kept or inside.startswith(f"{kept}/") for kept in KEPT)
