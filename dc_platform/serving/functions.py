"""Which functions SQL of people may call, and how."""

from __future__ import annotations

import re
from typing import Any

# They tell about the process, its files or its settings, write, wait, or reach past the guard.
_FORBIDDEN = frozenset(
    {
        "col_description",
        "current_query",
        "current_setting",
        "currval",
        "get_block_size",
        "getenv",
        "getvariable",
        "json_execute_serialized_sql",
        "json_serialize_plan",
        "nextval",
        "obj_description",
        "query",
        "query_table",
        "setseed",
        "shobj_description",
        "sleep_ms",
        "stats",
        "write_log",
    }
)
# They end the process: they go down into JSON that is nested 200,000 deep until the stack is full
# (DuckDB 1.5), or take bytes for a state of an aggregate; or they make DuckDB refuse all that follows.
_CRASHING = frozenset(
    {
        "cast_to_type",
        "combine",
        "finalize",
        "json_contains",
        "json_deserialize_sql",
        "json_group_structure",
        "json_merge_patch",
        "json_serialize_sql",
        "json_structure",
        "make_type",
        "reservoir_quantile",
    }
)
_CRASHING_PREFIXES = ("__internal", "st_", "variant_")
# PostgreSQL's functions about the catalog, but for these.
_PG_ALLOWED = frozenset({"pg_size_pretty", "pg_typeof"})

_LIST_AGGREGATES = frozenset(
    {"aggregate", "array_aggr", "array_aggregate", "list_aggr", "list_aggregate"}
)
# Those that a list has a function of its own for, and quantiles. `bitstring_agg` ends the process:
# there it has no statistics of what it takes.
_OF_LISTS = frozenset(
    {
        *("any_value", "approx_count_distinct", "avg", "bit_and", "bit_or", "bit_xor", "bool_and"),
        *("bool_or", "count", "entropy", "first", "histogram", "kurtosis", "kurtosis_pop", "last"),
        *("mad", "max", "mean", "median", "min", "mode", "product", "quantile", "quantile_cont"),
        *("quantile_disc", "sem", "skewness", "stddev", "stddev_pop", "stddev_samp", "string_agg"),
        *("sum", "var_pop", "var_samp", "variance"),
    }
)
_TO_STRUCTURES = frozenset(
    {"from_json", "from_json_strict", "json_transform", "json_transform_strict"}
)
# A structure that is nested 20,000 deep ends the process.
_STRUCTURE_CHARACTERS = 10_000
_STRUCTURE_BRACKETS = 256
# An offset near 2^63 ends the process.
_FURTHEST = 2**31


def refused_name(name: str) -> str | None:
    """Why a function is not let through, by its folded name; None when it is."""
    catalog = name.startswith("pg_") and name not in _PG_ALLOWED
    crashing = name in _CRASHING or name.startswith(_CRASHING_PREFIXES)
    if catalog or crashing or name in _FORBIDDEN:
        return f"Function {name!r} is not let through."
    return None


def refused_call(name: str, node: dict[str, Any]) -> str | None:
    """Why a call of a function whose name is let through is not; `node` is DuckDB's of the call."""
    if (offset := node.get("offset_expr")) is not None:
        steps = _constant(offset)
        if not isinstance(steps, int) or abs(steps) > _FURTHEST:
            return f"{name} takes a number as its offset, written out and at most {_FURTHEST}."
    if name in _LIST_AGGREGATES:
        aggregate = _second(node)
        if not isinstance(aggregate, str) or aggregate.lower() not in _OF_LISTS:
            return (
                f"{name} takes the name of an aggregate, written out;"
                f" there are {', '.join(sorted(_OF_LISTS))}."
            )
    if name in _TO_STRUCTURES:
        structure = _second(node)
        bounded = isinstance(structure, str) and len(structure) <= _STRUCTURE_CHARACTERS
        if not bounded or len(re.findall(r"[\[{(]", structure)) > _STRUCTURE_BRACKETS:
            return (
                f"{name} takes its structure written out, of at most {_STRUCTURE_CHARACTERS}"
                f" characters and {_STRUCTURE_BRACKETS} brackets."
            )
    return None


def _second(node: dict[str, Any]) -> Any:
    """The second argument when it is a constant. In `l.list_aggr('sum')` DuckDB takes `l` for a schema
    until it looks whether there is one.
    """
    place = 1 if node["schema"].lower() in ("", "main") and not node["catalog"] else 0
    return _constant(node["children"][place]) if len(node["children"]) > place else None


def _constant(node: dict[str, Any]) -> Any:
    return node["value"].get("value") if node.get("class") == "CONSTANT" else None
