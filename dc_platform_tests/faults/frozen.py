"""A landing process that stops itself (SIGSTOP) at a point of its first landing: `python -m … POINT`.

Woken by SIGCONT it goes on as if nothing had happened, and prints how it ended.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from dc_platform.landing.lander import Lander
from dc_platform.settings import settings


def main(point: str) -> None:
    passed = False

    def reached(name: str) -> None:
        nonlocal passed
        if name == point and not passed:
            passed = True
            os.kill(os.getpid(), signal.SIGSTOP)

    lander = Lander(settings(), sources=None, owner=f"frozen-{os.getpid()}", reached=reached)
    print(lander.run(threading.Event(), until_caught_up=True).value, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
