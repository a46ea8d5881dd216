"""Serving's process as a whole: who in it goes first."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from dc_platform.priority import BEHIND
from dc_platform.serving.app import create_app
from dc_platform.settings import Settings


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_the_tail_goes_before_the_queries(tmp_path: Path) -> None:
    def tasks() -> set[int]:
        return {int(task.name) for task in Path("/proc/self/task").iterdir()}

    here, before = os.getpriority(os.PRIO_PROCESS, 0), tasks()
    settings = Settings(data_dir=tmp_path, kafka_bootstrap="127.0.0.1:1")
    with TestClient(create_app(settings, alone=True)) as client:
        assert client.get("/healthz").status_code == 503
        (tail,) = (thread for thread in threading.enumerate() if thread.name == "tail")
        assert tail.native_id is not None
        assert os.getpriority(os.PRIO_PROCESS, tail.native_id) == here
        # DuckDB's among them.
        nice = [os.getpriority(os.PRIO_PROCESS, task) for task in tasks() - before]
        assert nice.count(max(here, BEHIND)) >= 2
    assert os.getpriority(os.PRIO_PROCESS, 0) == here
