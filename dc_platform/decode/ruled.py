"""Events of sources with a schema, among those that are read in columns.

Payloads are asked one by one (1 µs each, where a schema applies); whatever it says beyond "it fits"
goes to the strict judge, which rejects and flags. Sources without a schema are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from dc_platform.contracts.envelope import Passed
from dc_platform.decode.columns import Indices, KnownSources
from dc_platform.decode.texts import Mask

if TYPE_CHECKING:
    from dc_platform.contracts.schema_check import Rules


class Asked(NamedTuple):
    """What is known of each pair of source and time that events have."""

    tenants: list[str | None]
    rules: list[Rules | None]

    @classmethod
    def of(cls, sources: KnownSources, pairs: Sequence[tuple[str | None, int]]) -> Asked:
        """Ask of every pair; a source that is not named is not known."""
        tenants = [None if s is None else sources.tenant_of(s, at) for s, at in pairs]
        rules = [
            None if s is None or tenant is None else sources.rules_of(s, at)
            for (s, at), tenant in zip(pairs, tenants, strict=True)
        ]
        return cls(tenants, rules)


def judged(
    rules: Sequence[Rules | None],
    pair_of: Indices,
    event_types: Callable[[Indices], Sequence[str | None]],
    payloads: pa.Array,
    ok: Mask,
) -> pa.Array | None:
    """Which schema judged each event; None when no source has one. What does not simply fit is no
    longer `ok`.

    Event i belongs to pair `pair_of[i]`. `event_types` gives those of some events.
    """
    if not any(rules):
        return None
    has_rules = np.array([r is not None for r in rules])
    places = np.flatnonzero(has_rules[pair_of] & ok)
    judged_by = np.full(len(ok), None, object)
    texts = payloads.take(pa.array(places)).cast(pa.binary()).to_pylist()
    types = event_types(places)
    for place, kind, payload in zip(places.tolist(), types, texts, strict=True):
        rule = rules[pair_of[place]]
        assert rule is not None
        verdict = rule.judge(kind or "", payload)
        if isinstance(verdict, Passed) and not verdict.flags:
            judged_by[place] = verdict.judged_by
        elif verdict is not None:
            ok[place] = False
    return pa.array(judged_by, pa.string())
