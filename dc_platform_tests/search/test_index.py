"""The index alone: the order of its hits, page by page, however many have the same time."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from dc_platform.search.analysis import Analyzer, joined
from dc_platform.search.index import After, Hit, Moment, Wanted, Writing
from dc_platform.search.language import Phrase, parse
from dc_platform.search.state import State

SOURCES = ["s", "", "é" * 100, "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01", "S"]
TIMES = [-(2**61), -7, 0, 5, 5, 5, 2**61]


def events() -> list[Hit]:
    random = Random(3)
    identities = [0, 2**64 - 1, 2**63, *(random.getrandbits(64) for _ in range(197))]
    made = []
    for number, identity in enumerate(identities):
        place = (random.randrange(3), number * 2**40, number % 5, 1 + number % 4)
        made.append(Hit(random.choice(TIMES), identity, *place, random.choice(SOURCES)))
    # The same event with another time, which silver keeps out only where it meets it.
    return [*made, made[0]._replace(time=6), made[0]._replace(time=-8, piece=9)]


@pytest.fixture(scope="module")
def moment(tmp_path_factory: pytest.TempPathFactory) -> Moment:
    directory = tmp_path_factory.mktemp("index")
    writing = Writing(directory, memory_mb=32, empty=State("t"))
    for number, hit in enumerate(events()):
        fields = {name: value for name, value in hit._asdict().items() if name != "time"}
        words = joined(["disk", *["rare"][: number % 40 == 0]])
        writing.add(
            [
                msgspec.json.encode(
                    {**fields, "event_time": hit.time, "tenant_id": "default", "words": words}
                ).decode()
            ]
        )
        if number % 50 == 0:
            # Several segments.
            writing.commit(State("t"))
    writing.commit(State("t"))
    writing.close()
    return writing.moment()


def in_order(hits: list[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: (-hit.time, hit.identity))


@pytest.mark.parametrize("limit", [1, 2, 7, 50, 150, 1000])
@pytest.mark.parametrize(
    ("word", "without"), [("disk", ()), ("rare", ()), ("disk", ((1, 2), (9, 9))), ("none", ())]
)
def test_hits_come_in_order_each_once(
    moment: Moment, word: str, without: tuple[tuple[int, int], ...], limit: int
) -> None:
    wanted = Wanted(Phrase((word,)), "default")
    expected = in_order(
        [
            hit
            for number, hit in enumerate(events())
            if (word == "disk" or (word == "rare" and number % 40 == 0))
            and not any(a <= hit.piece <= b for a, b in without)
        ]
    )
    found: list[Hit] = []
    after = None
    while True:
        count, page = moment.search(wanted, without=without, after=after, limit=limit)
        assert count == len(expected)
        found += page
        if len(page) < limit:
            break
        after = After(page[-1].time, page[-1].identity)
    assert found == expected


def test_a_time_range_and_a_source(moment: Moment) -> None:
    tree = parse("disk", Analyzer().of_texts)
    wanted = Wanted(tree, "default", sources=["S", "é" * 100], from_us=-7, to_us=6)
    count, found = moment.search(wanted, without=(), after=None, limit=1000)
    expected = [hit for hit in events() if hit.source_id in ("S", "é" * 100) and -7 <= hit.time < 6]
    assert (count, found) == (len(expected), in_order(expected))
