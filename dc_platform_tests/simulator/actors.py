"""Threads of which exactly one runs, and only as far as its next point: a schedule can be repeated.

An actor that is killed runs no further line of the platform but `finally`, and whatever that does to
the store is refused: its memory is gone, as after SIGKILL.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class KilledError(BaseException):
    """Not an Exception: nothing of the platform may catch it."""


class Actor:
    """One process of the world: `work` gets the actor, and calls `pause` at its points."""

    def __init__(self, name: str, work: Callable[[Actor], None]) -> None:
        self.name = name
        self.at = "start"
        self.ended = False
        self.error: BaseException | None = None
        self._work = work
        self._killed = False
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Let it go on until its next point, or its end."""
        if not self.ended:
            self._go.release()
            self._back.acquire()
            if self.ended:
                self._thread.join()

    def kill(self) -> None:
        """End it where it is."""
        self._killed = True
        self.step()

    def pause(self, at: str) -> None:
        """Called by the actor: others may go on now."""
        if self._killed:
            raise KilledError
        self.at = at
        self._back.release()
        self._go.acquire()
        if self._killed:
            raise KilledError

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._killed:
                self._work(self)
        except KilledError:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.ended = True
            self._back.release()
