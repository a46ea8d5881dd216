"""Downloads: pinned, whole or not there, once."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import jgo.maven._core
import pytest

from dc_platform.errors import FatalError, RetriableError
from dc_platform.stack import artifacts
from dc_platform.stack.artifacts import Pin

CONTENT = b"a jar" * 1000
PIN = Pin("org.example", "thing", "1.0", hashlib.sha256(CONTENT).hexdigest())


class Repository(http.server.ThreadingHTTPServer):
    """A Maven repository with one file. `answers` are given in turn, the last one for ever."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = [CONTENT]
        self.cut_off = False
        self.requests = 0
        self.entered = threading.Event()
        self.hold = threading.Event()
        self.hold.set()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves the file; its checksums are not there."""

    server: Repository

    def do_GET(self) -> None:
        if not self.path.endswith(PIN.path.name):
            self.send_error(404)
            return
        self.server.requests += 1
        self.server.entered.set()
        self.server.hold.wait(30)
        answers = self.server.answers
        body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.server.cut_off else body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    server = Repository()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(jgo.maven._core.DEFAULT_REMOTE_REPOS, "central", url)
    yield server
    server.hold.set()
    server.shutdown()
    server.server_close()


def fetch(local: Path) -> Path:
    (path,) = artifacts.fetch("a thing", [PIN], repository=local)
    return path


def everything_in(local: Path) -> list[Path]:
    return [p for p in local.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_what_is_missing_is_downloaded_once(remote: Repository, tmp_path: Path) -> None:
    path = fetch(tmp_path)
    assert path == tmp_path / "org/example/thing/1.0/thing-1.0.jar"
    assert path.read_bytes() == CONTENT
    fetch(tmp_path)
    assert remote.requests == 1
    assert everything_in(tmp_path) == [path]


def test_with_all_files_there_no_network_is_needed(tmp_path: Path) -> None:
    path = tmp_path / PIN.path
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    # No repository answers in this test.
    assert fetch(tmp_path) == path


@pytest.mark.parametrize("there", [CONTENT[:100], b"", b"another file"])
def test_a_damaged_file_is_replaced(remote: Repository, tmp_path: Path, there: bytes) -> None:
    path = tmp_path / PIN.path
    path.parent.mkdir(parents=True)
    path.write_bytes(there)
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert remote.requests == 1


def test_a_wrong_file_is_downloaded_once_more(remote: Repository, tmp_path: Path) -> None:
    remote.answers = [b"wrong", CONTENT]
    assert fetch(tmp_path).read_bytes() == CONTENT
    assert remote.requests == 2


def test_a_file_that_is_wrong_twice_is_refused_and_not_kept(
    remote: Repository, tmp_path: Path
) -> None:
    remote.answers = [b"wrong"]
    with pytest.raises(FatalError, match=r"thing-1\.0\.jar does not have the pinned SHA-256"):
        fetch(tmp_path)
    assert remote.requests == 2
    assert everything_in(tmp_path) == []


def test_a_download_that_is_cut_off_leaves_nothing_that_looks_complete(
    remote: Repository, tmp_path: Path
) -> None:
    remote.cut_off = True
    with pytest.raises(RetriableError, match="cannot download thing"):
        fetch(tmp_path)
    assert everything_in(tmp_path) == []
    remote.cut_off = False
    assert fetch(tmp_path).read_bytes() == CONTENT


def test_what_a_killed_download_left_does_not_disturb_the_next(
    remote: Repository, tmp_path: Path
) -> None:
    half = tmp_path / ".dc-platform-download" / PIN.path
    half.parent.mkdir(parents=True)
    half.write_bytes(CONTENT[:100])
    assert fetch(tmp_path).read_bytes() == CONTENT


def test_two_at_once_download_once(remote: Repository, tmp_path: Path) -> None:
    remote.hold.clear()
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert remote.entered.wait(30)
    remote.hold.set()
    for thread in threads:
        thread.join(30)
    assert len(found) == 2
    assert remote.requests == 1


def test_without_a_network_the_error_says_what_is_needed(
    remote: Repository, tmp_path: Path
) -> None:
    remote.shutdown()
    remote.server_close()
    with pytest.raises(RetriableError, match="the first start needs the network"):
        fetch(tmp_path)


def test_kafkas_files_are_pinned() -> None:
    pins = artifacts.kafka_pins()
    assert pins[0][:3] == ("org.apache.kafka", "kafka_2.13", "4.4.0")
    assert all(len(pin.sha256) == 64 for pin in pins)
    assert len({pin[:2] for pin in pins}) == len(pins) > 40
    # All of Kafka is of one version, and it can log.
    assert {p.version for p in pins if p.group == "org.apache.kafka"} == {"4.4.0"}
    assert "log4j-slf4j-impl" in {pin.artifact for pin in pins}
