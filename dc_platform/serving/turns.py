"""Whose query runs next: a bounded number at once, and of a tenant no more than its share.

Who waits is let in when somebody is done: of the tenants that wait, the one with the fewest running. So
a tenant's many heavy queries are late for one another, and for nobody else.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import HTTPException

# Of one tenant; whoever comes then is refused at once.
_MOST_WAITING = 200


class Turns:
    """For one event loop. `running` queries at once, `per_tenant` of one; the others wait so many
    `seconds`. `kind`: of settings, DCP_QUERY_… or DCP_SQL_….
    """

    def __init__(
        self, *, running: int, per_tenant: int, seconds: float, kind: str = "QUERY"
    ) -> None:
        self._kind = kind
        self._most = running
        self._per_tenant = per_tenant
        self._seconds = seconds
        self._running: defaultdict[str, int] = defaultdict(int)
        self._waiting: defaultdict[str, deque[anyio.Event]] = defaultdict(deque)

    @asynccontextmanager
    async def taken(self, tenant_id: str) -> AsyncIterator[None]:
        """A turn for the block."""
        await self.take(tenant_id)
        try:
            yield
        finally:
            self.give_back(tenant_id)

    async def take(self, tenant_id: str) -> None:
        """Wait for a turn; raises HTTPException 429 when none comes."""
        waiting = self._waiting[tenant_id]
        if not waiting and self._may(tenant_id):
            self._running[tenant_id] += 1
            return
        if len(waiting) >= _MOST_WAITING:
            raise self._refused()
        turn = anyio.Event()
        waiting.append(turn)
        try:
            with anyio.move_on_after(self._seconds):
                await turn.wait()
        except BaseException:
            if turn.is_set():
                self.give_back(tenant_id)
            else:
                waiting.remove(turn)
            raise
        if not turn.is_set():
            waiting.remove(turn)
            raise self._refused()

    def give_back(self, tenant_id: str) -> None:
        """The query is done; the next one that waits is let in."""
        self._running[tenant_id] -= 1
        ready = [t for t, events in self._waiting.items() if events and self._may(t)]
        if ready:
            chosen = min(ready, key=lambda tenant: self._running[tenant])
            self._running[chosen] += 1
            self._waiting[chosen].popleft().set()

    def _may(self, tenant_id: str) -> bool:
        all_running = sum(self._running.values())
        return all_running < self._most and self._running[tenant_id] < self._per_tenant

    def _refused(self) -> HTTPException:
        return HTTPException(
            429,
            f"No turn within {self._seconds:g} s: {self._per_tenant} queries of a tenant run at once"
            f" (DCP_{self._kind}_TENANT_CONCURRENCY), {self._most} of all"
            f" (DCP_{self._kind}_CONCURRENCY). Try again.",
            headers={"Retry-After": "5"},
        )
