"""An event loop whose clock jumps to the next timer: waits of minutes are tested in no time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeps by moving its clock. Without a timer it waits for I/O, as any loop does."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        selector = self._selector  # type: ignore[attr-defined]
        wait = selector.select

        def select(timeout: float | None = None) -> Any:
            if timeout:
                self._now += timeout
                timeout = 0
            return wait(timeout)

        selector.select = select

    def time(self) -> float:
        return self._now


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on a virtual clock; an error that nobody asked for fails the test."""
    unasked: list[dict[str, Any]] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: unasked.append(about))
        return await work

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(watched())
    assert unasked == []
    return result


async def settle() -> None:
    """Let everything run that need not wait for a timer or for somebody else."""
    for _ in range(20):
        await asyncio.sleep(0)
