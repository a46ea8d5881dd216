"""Turns: a tenant's queries wait for one another, and for nobody else."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import HTTPException

from dc_platform.serving.turns import Turns


def test_a_tenant_gets_its_share_and_the_others_theirs() -> None:
    async def scene() -> None:
        turns = Turns(running=3, per_tenant=2, seconds=60)
        for _ in range(2):
            await turns.take("a")
        waiting = [asyncio.create_task(turns.take("a")) for _ in range(3)]
        await asyncio.sleep(0)
        # Of others the next is let in at once, the one after it waits: three run.
        await turns.take("b")
        late = asyncio.create_task(turns.take("c"))
        await asyncio.sleep(0)
        assert not any(task.done() for task in (*waiting, late))
        # Who has the fewest running comes first, however long the others have waited.
        turns.give_back("a")
        await late
        assert not any(task.done() for task in waiting)
        turns.give_back("c")
        await waiting[0]
        turns.give_back("b")
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [True, False, False]
        # Who leaves while it waits takes nobody's turn.
        waiting[1].cancel()
        await asyncio.gather(waiting[1], return_exceptions=True)
        turns.give_back("a")
        await waiting[2]
        for _ in range(2):
            turns.give_back("a")
        async with turns.taken("a"), turns.taken("a"):
            await turns.take("d")

    asyncio.run(scene())


def test_who_waits_too_long_is_told_to_come_again() -> None:
    async def scene() -> None:
        turns = Turns(running=2, per_tenant=1, seconds=0.01)
        await turns.take("a")
        with pytest.raises(HTTPException) as refused:
            await turns.take("a")
        assert refused.value.status_code == 429
        assert refused.value.headers == {"Retry-After": "5"}
        assert "DCP_QUERY_TENANT_CONCURRENCY" in refused.value.detail
        turns.give_back("a")
        await turns.take("a")

    asyncio.run(scene())


def test_a_turn_that_comes_as_its_owner_leaves_is_given_on() -> None:
    async def scene() -> None:
        turns = Turns(running=1, per_tenant=1, seconds=60)
        await turns.take("a")
        leaver = asyncio.create_task(turns.take("a"))
        await asyncio.sleep(0)
        turns.give_back("a")
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        await asyncio.wait_for(turns.take("b"), 10)

    asyncio.run(scene())
