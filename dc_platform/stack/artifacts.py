"""Programs from Maven, pinned by SHA-256.

Invariant: a path that `fetch` returns has the pinned digest. A download is made beside the
repository and moved into it whole, so neither an interrupted download nor a second process at the
same time leaves a file there that looks complete and is not.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from dc_platform.errors import ConfigurationError, FatalError, PlatformError, RetriableError
from dc_platform.stack.downloads import Counter, downloads

_READ = 2**20
_TIMEOUT_SECONDS = 60


class Pin(NamedTuple):
    """One file in Maven's coordinates, and its digest."""

    group: str
    artifact: str
    version: str
    sha256: str
    packaging: str = "jar"

    @property
    def path(self) -> Path:
        """Where a Maven repository keeps the file, below its root."""
        name = f"{self.artifact}-{self.version}.{self.packaging}"
        return Path(*self.group.split("."), self.artifact, self.version, name)


def kafka_pins() -> list[Pin]:
    """Apache Kafka and what it needs, in the order of its class path."""
    text = resources.files("dc_platform.stack").joinpath("kafka_jars.txt").read_text()
    return parse_pins(text)


def parse_pins(text: str) -> list[Pin]:
    """Lines `group:artifact:version sha256`; empty lines and those with # are passed over."""
    pins = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            coordinate, sha256 = line.split()
            group, artifact, version = coordinate.split(":")
            pins.append(Pin(group, artifact, version, sha256))
    return pins


def repository_path() -> Path:
    """Maven's repository of this user, which other tools share."""
    return Path.home() / ".m2" / "repository"


def fetch(what: str, pins: Sequence[Pin], *, repository: Path | None = None) -> list[Path]:
    """The files of `pins` in their order; what is missing or damaged is downloaded."""
    root = repository or repository_path()
    if not all(is_whole(root / pin.path, pin.sha256) for pin in pins):
        try:
            _download_missing(what, pins, root)
        except OSError as error:
            raise ConfigurationError(f"cannot keep {what} in {root}: {error}") from error
    return [root / pin.path for pin in pins]


def is_whole(path: Path, sha256: str) -> bool:
    """Whether the file is there and has that digest."""
    if not path.is_file():
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ):
            digest.update(chunk)
    return digest.hexdigest() == sha256


def _download_missing(what: str, pins: Sequence[Pin], root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / ".dc-platform.lock")
    with downloads(what) as counter:
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            counter.say("another process is downloading: waiting for it")
            held = lock.acquire()
        with held:
            missing = [pin for pin in pins if not is_whole(root / pin.path, pin.sha256)]
            counter.expect(len(missing))
            for pin in missing:
                _download(pin, root, counter)


def _download(pin: Pin, root: Path, counter: Counter) -> None:
    """Download one file and move it into place; a download that fails is tried once more."""
    staging = root / ".dc-platform-download"
    problem: PlatformError | None = None
    for _attempt in range(2):
        shutil.rmtree(staging, ignore_errors=True)
        try:
            downloaded = resolve(pin, staging, counter)
        except RetriableError as error:
            problem = error
            continue
        if is_whole(downloaded, pin.sha256):
            target = root / pin.path
            target.parent.mkdir(parents=True, exist_ok=True)
            downloaded.replace(target)
            shutil.rmtree(staging, ignore_errors=True)
            return
        problem = FatalError(
            f"{pin.path.name} does not have the pinned SHA-256: the repository, or a proxy before"
            " it, serves another file than the one that was pinned"
        )
    shutil.rmtree(staging, ignore_errors=True)
    assert problem is not None
    raise problem


def resolve(pin: Pin, staging: Path, counter: Counter) -> Path:
    """Download one file into a repository of its own, unchecked."""
    # Imported here: half a second that a start with everything in place does not need.
    import requests
    from jgo.maven import MavenContext, PythonResolver

    context = MavenContext(
        resolver=PythonResolver(progress_callback=counter.file),
        repo_cache=staging,
        timeout=_TIMEOUT_SECONDS,
    )
    component = context.project(pin.group, pin.artifact).at_version(pin.version)
    try:
        return Path(component.artifact(packaging=pin.packaging).resolve())
    except (requests.RequestException, RuntimeError) as error:
        raise RetriableError(
            f"cannot download {pin.path.name} ({type(error).__name__}: {error});"
            " the first start needs the network, later ones do not"
        ) from error
