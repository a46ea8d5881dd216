"""`make bench-landing`: progress on standard error; the last line on standard output is JSON."""

from __future__ import annotations

import argparse
import json
import sys

from benchmarks.landing.peers import Dlt, Spark, check_installed, spark_jars
from benchmarks.landing.ratios import ratios, table
from dc_platform.bench.contenders import Contender
from dc_platform.bench.landing import FORMATS, bench_landing
from dc_platform.errors import PlatformError

_PEERS = ("spark", "dlt")


def main() -> int:
    """Run the bench; exit code 1 when a table does not have what it should."""
    given = _arguments()
    try:
        result = bench_landing(
            events=given.events,
            preload=given.preload,
            rounds=given.rounds,
            formats=given.formats,
            others=_contenders(given.peers),
            say=_say,
        )
    except PlatformError as error:
        _say(f"error: {error}")
        return 1
    _say(table(result, given.formats))
    print(json.dumps(result | ratios(result, given.formats)))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-landing", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--preload", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--peers", nargs="*", choices=_PEERS, default=list(_PEERS))
    return parser.parse_args()


def _contenders(names: list[str]) -> list[Contender]:
    if names:
        check_installed()
    found: list[Contender] = []
    if "spark" in names:
        found.append(Spark(",".join(map(str, spark_jars()))))
    if "dlt" in names:
        found.append(Dlt())
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
