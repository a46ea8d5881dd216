"""The commands of the README run, and say what it shows."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from dc_platform_tests.e2e.platform import Platform, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent


def commands() -> list[str]:
    """Lines after `$ ` in the console blocks, continued lines joined."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def test_the_readme_begins_with_two_commands() -> None:
    assert commands()[0] == "make run"
    assert commands()[1].startswith(".venv/bin/dcp sql ")
    makefile = (ROOT / "Makefile").read_text()
    for command in commands():
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE)


def test_the_commands_run(platform: Platform) -> None:
    key = ""
    for command in commands():
        words = shlex.split(command.replace("$KEY", key))
        if words[0] == "make":
            continue
        if words[0] == "curl":
            words = [w.replace("http://127.0.0.1:8080", platform.info["gateway"]) for w in words]
            done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
            assert json.loads(done.stdout) == {"accepted": 1, "rejected": 0, "errors": []}
            continue
        assert words[0] == ".venv/bin/dcp"
        if words[1:3] == ["source", "create"]:
            printed = platform.dcp(*words[1:])
            key = re.findall(r"key\s+(dck_\S+)", printed)[0]
        elif "order" in command:
            wait_for(lambda w=words: "12.75" in platform.dcp(*w[1:]), 180, "the order in the union")
        else:
            assert "rows)" in platform.dcp(*words[1:]) or "row)" in platform.dcp(*words[1:])
