"""Asking: a number of clients, each with the next question as soon as it has an answer.

Whoever is asked lives in a child process that reads tasks from its standard input, a JSON object a
line, and answers each with one. Nothing but the standard library is imported here: peers run it in a
Python of their own.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

Ask = Callable[[Any], list[list[Any]]]


def serve(connect: Callable[[], Ask]) -> None:
    """Answer tasks until the input ends. `connect` gives each client what it asks with."""
    asks: list[Ask] = []
    for line in sys.stdin:
        task = json.loads(line)
        while len(asks) < task["clients"]:
            asks.append(connect())
        print(json.dumps(answers(asks, **task)), flush=True)


def answers(
    asks: list[Ask], *, questions: list[Any], clients: int, most: int, seconds: float
) -> dict[str, Any]:
    """Ask in turn until `most` questions were asked or the time is over.

    Gives `latencies_ms`, `seconds` and the answer to the first question.
    """
    numbers, latencies, first = count(), [], []
    begun = time.perf_counter()
    errors: list[str] = []

    def client(ask: Ask) -> None:
        while not errors:
            number = next(numbers)
            at = time.perf_counter()
            if number >= most or at - begun > seconds:
                return
            try:
                rows = ask(questions[number % len(questions)])
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
                return
            latencies.append((time.perf_counter() - at) * 1000)
            if number == 0:
                first.extend(rows)

    threads = [threading.Thread(target=client, args=(ask,)) for ask in asks[:clients]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "latencies_ms": latencies,
        "seconds": time.perf_counter() - begun,
        "answer": first,
        "error": errors[0] if errors else None,
    }
