"""How an event counts: the one rule of queries, metrics and gold (docs/query.md).

An event that sampling kept at a rate stands for 1 / rate events: counts, sums and means weigh it so. A
rate that is none weighs 1: the event is there. Weights and sums are decimals with nine places, so
neither depends on the order of the events, nor on which part of them was added up before
(`dbt_project/macros/dialect.sql` says the same for gold).
"""

from __future__ import annotations

_SAMPLED = "sample_rate > 1e-9 and sample_rate < 1"


def exact_sql(number: str) -> str:
    """A double as decimal(38, 9): of its shortest text, half away from zero; null past 10^29.

    Texts take 10 µs each to become a decimal of 38 digits, and 0.1 to become one of 18.
    """
    text = f"cast({number} as varchar)"
    return (
        f"case when abs({number}) < 999999999"
        f" then try_cast({text} as decimal(18, 9))::decimal(38, 9)"
        f" else try_cast({text} as decimal(38, 9)) end"
    )


WEIGHT_SQL = (
    f"case when {_SAMPLED} then {exact_sql('(1e0 / sample_rate)')} else 1::decimal(38, 9) end"
)
# As many places before the point as sums of 10^11 of them need (decimal(38, 9)).
SUMMED_SQL = "abs({0}) < 1e18"


def weights_sql(condition: str = "", *, sampled: bool = True) -> str:
    """The sum of the weights of the rows for which the condition holds, of a relation with the column
    `sample_rate`. What was not sampled is only counted; where nothing was, `sampled` may be False, and
    the sum is a bigint: decimals take a fifth of the time of a query of the newest rows.
    """
    extra = f"case when {_SAMPLED} then {exact_sql('(1e0 / sample_rate)')} - 1 end"
    only = f" filter (where {condition})" if condition else ""
    if not sampled:
        return f"count(*){only}"
    return f"(count(*){only})::decimal(38, 9) + coalesce(sum({extra}){only}, 0)"


def sum_sql(weighted: str) -> str:
    """The exact sum of weighted values, decimal(38, 9); those of 10^18 and more are left out."""
    return f"sum({exact_sql(weighted)}) filter (where {SUMMED_SQL.format(weighted)})"


def rounded_sql(weights: str) -> str:
    """A sum of weights as a number of events."""
    return f"coalesce(round({weights}), 0)::bigint"
