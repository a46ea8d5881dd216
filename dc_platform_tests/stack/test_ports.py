"""Which ports a stack takes."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from dc_platform.errors import ConfigurationError
from dc_platform.stack import ports
from dc_platform.stack.ports import DEFAULT_PORTS, choose


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_free_ports_are_distinct_and_outside_of_outgoing_connections() -> None:
    chosen = choose(needed=DEFAULT_PORTS, remembered={}, auto=True)
    assert chosen.keys() == DEFAULT_PORTS.keys()
    assert len(set(chosen.values())) == len(chosen)
    # From here on Linux takes the ports of connections.
    assert all(1024 < port < 32768 for port in chosen.values())


def test_two_stacks_that_choose_at_once_get_different_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Both look at the same ports first, and neither listens yet.
    monkeypatch.setattr(random, "shuffle", lambda starts: None)
    first = choose(needed=DEFAULT_PORTS, remembered={}, auto=True)
    second = choose(needed=DEFAULT_PORTS, remembered={}, auto=True)
    assert not set(first.values()) & set(second.values())


@pytest.mark.parametrize("auto", [True, False])
def test_remembered_ports_stay(auto: bool) -> None:
    remembered = choose(needed=DEFAULT_PORTS, remembered={}, auto=True)
    assert choose(needed=DEFAULT_PORTS, remembered=remembered, auto=auto) == remembered


def test_without_a_memory_the_default_ports_are_taken() -> None:
    assert choose(needed=(), remembered={}, auto=False) == DEFAULT_PORTS


def test_a_taken_port_is_named_with_the_remedy(taken: int) -> None:
    remembered = {**DEFAULT_PORTS, "gateway": taken}
    with pytest.raises(ConfigurationError, match=rf"port {taken} of gateway.*--ports auto"):
        choose(needed=("gateway",), remembered=remembered, auto=False)


def test_auto_replaces_only_the_taken_port(taken: int) -> None:
    before = choose(needed=DEFAULT_PORTS, remembered={}, auto=True)
    after = choose(needed=DEFAULT_PORTS, remembered={**before, "serving": taken}, auto=True)
    assert after.pop("serving") not in (taken, *before.values())
    before.pop("serving")
    assert after == before


def test_usual_ports_move_only_where_they_are_taken(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = choose(needed=DEFAULT_PORTS, remembered={}, auto=True)
    monkeypatch.setattr(ports, "DEFAULT_PORTS", {**free, "gateway": taken, "trino": taken})
    needed = DEFAULT_PORTS.keys() - {"trino"}
    chosen = choose(needed=needed, remembered={}, auto=True, usual=True)
    assert chosen["gateway"] not in (taken, *free.values())
    # Trino is not started: its port matters to nobody.
    assert {**chosen, "gateway": 0} == {**free, "gateway": 0, "trino": taken}


def test_ports_do_not_move_while_other_parts_run(taken: int) -> None:
    remembered = {**DEFAULT_PORTS, "kafka": taken}
    with pytest.raises(ConfigurationError, match="dcp down"):
        choose(needed=("kafka",), remembered=remembered, auto=True, movable=False)


def test_a_port_of_a_part_that_is_not_started_may_be_taken(taken: int) -> None:
    remembered = {**DEFAULT_PORTS, "trino": taken}
    assert choose(needed=(), remembered=remembered, auto=False)["trino"] == taken


def test_a_listener_on_all_addresses_counts() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert not ports.is_free(server.getsockname()[1])
