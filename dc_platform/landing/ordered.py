"""The identities of a batch's rows, put in order once.

What follows walks through memory in that order instead of jumping about in it: duplicates within the
batch are neighbours, the bitmap and the runs of known identities are read from end to end, and the
identity file is in order already. 200,000 rows: 8 ms instead of three sorts and 40 ms of look-ups.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dc_platform.landing.keys import Keys, Mask

I64 = npt.NDArray[np.int64]


class Ordered(NamedTuple):
    """Identities by ascending high words, and of each its scope and the number of its row."""

    keys: Keys
    scopes: I64
    rows: I64

    @classmethod
    def of(cls, keys: Keys, scopes: I64) -> Ordered:
        """Of rows whose identities and scopes these are, in the order of the rows."""
        order = np.argsort(keys.high)
        return cls(keys.take(order), scopes[order], order)

    def __len__(self) -> int:
        return len(self.rows)

    def firsts(self) -> Mask:
        """Which of these are the first of their identity, by the order of the rows."""
        first = np.ones(len(self), bool)
        high = self.keys.high
        same = high[1:] == high[:-1]
        if not same.any():
            return first
        # Few share a word: only these are put in order by both words, and by their rows.
        shared = np.zeros(len(self), bool)
        shared[1:] |= same
        shared[:-1] |= same
        places = np.flatnonzero(shared)
        places = places[
            np.lexsort((self.rows[places], self.keys.low[places], self.keys.high[places]))
        ]
        high, low = self.keys.high[places], self.keys.low[places]
        first[places[1:][(high[1:] == high[:-1]) & (low[1:] == low[:-1])]] = False
        return first

    def mask(self, chosen: Mask) -> Mask:
        """Which rows the chosen of these are."""
        rows = np.empty(len(self), bool)
        rows[self.rows] = chosen
        return rows

    def kept(self, chosen: Mask) -> Ordered:
        """The chosen of these, when only their rows are kept: those are numbered anew."""
        numbers = np.cumsum(self.mask(chosen)) - 1
        return Ordered(self.keys.take(chosen), self.scopes[chosen], numbers[self.rows[chosen]])
