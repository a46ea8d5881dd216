"""One build of the search index in a process of its own, so that its memory can be told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dc_platform.search.build import Builder
from dc_platform.settings import Settings


def main() -> None:
    """Build the index of a data directory; the last line printed is one JSON object."""
    built = Builder(Settings(data_dir=Path(sys.argv[1]))).build()
    print(json.dumps({"seconds": built.seconds, "segments": built.segments}))


if __name__ == "__main__":
    main()
