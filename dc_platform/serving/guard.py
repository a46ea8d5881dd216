"""Which SQL is let through: one SELECT over the platform's tables.

DuckDB itself parses the text (`json_serialize_sql`, which takes nothing but SELECT), and the tree is
walked: every table must be one of ours, every table function one of a few harmless ones. What is
not on a list is refused, so a new DuckDB feature is closed until someone opens it. The tree then
goes back to SQL with our tables' names in place of `layer.table` (`written.py`): what runs is read by
DuckDB as the tree that was checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import duckdb

from dc_platform.serving.functions import refused_call, refused_name
from dc_platform.serving.written import Writer, parsed

TABLES = (
    "events",
    "bronze.events",
    "silver.events",
    "silver.quarantine",
    "gold.event_types_top",
    "gold.events_hourly",
    "gold.metrics_hourly",
    "gold.sketches_hourly",
    "gold.sources_daily",
    "ops.acks",
    "ops.deletions",
    "ops.gaps",
    "ops.landing_border",
    "ops.ledger",
    "ops.replays",
    "ops.tombstones",
)
# Tables that a tenant has by its own names; the engine knows which there are.
OWN = re.compile(r"(?:ref|typed)\.[a-z][a-z0-9_]*")
_TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "json_each", "json_tree"})
# What can be asked as of an older version.
_TIMED = frozenset({"events", "silver.events"})
# Each is bound by itself, which nothing interrupts: 200 natural joins take minutes, 50 half a second.
_MOST_TABLES = 64
# 5,000 of UNION or of subqueries take 10 to 20 s before anything interrupts them.
_MOST_SELECTS = 200
# Functions of ours that only our own macros call, and views of ours, begin with it.
HIDDEN = "dcp_"
# What DuckDB writes back without quotes.
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+")


class RefusedError(Exception):
    """The SQL is not let through; the message says why and what is."""


class At(NamedTuple):
    """A moment of silver: unit `VERSION`, or `TIMESTAMP` (epoch milliseconds or ISO 8601)."""

    unit: str
    value: int | str


@dataclass(frozen=True)
class GuardedSql:
    """SQL that may run, once its `tables` exist as views with the names of `view_name`, and those of
    `past` (name of the view → table and moment). `parameters` are all that it names.
    """

    sql: str
    tables: frozenset[str]
    past: Mapping[str, tuple[str, At]]
    parameters: frozenset[str]


def is_table(name: str) -> bool:
    """Whether it is one of our tables, or may be one of the tenant's own."""
    return name in TABLES or OWN.fullmatch(name) is not None


def is_timed(table: str) -> bool:
    """Whether a table can be asked as of an older version; `not_timed` says that it cannot."""
    return table in _TIMED or table.startswith("typed.")


def not_timed(table: str) -> RefusedError:
    """The refusal of a table that is there as it is now alone."""
    return RefusedError(
        f"{table} can be asked as it is now only; time travel is for events, silver.events and"
        " typed.NAME."
    )


def no_table(name: str, own: Iterable[str] = ()) -> RefusedError:
    """The refusal of a table that is not there; `own` are the tenant's own that are."""
    return RefusedError(f"There is no table {name!r}; there are {', '.join([*TABLES, *own])}.")


def view_name(table: str) -> str:
    """Name of the temporary view that stands for a table."""
    return "dcp_" + table.replace(".", "__")


class Guard:
    """Checks and rewrites SQL. Thread-safe: each call has its own cursor."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(config={"threads": 1, "memory_limit": "256MB"})
        self._writer = Writer(self._connection)

    def check(self, sql: str) -> GuardedSql:
        """The SQL as it may run; raises RefusedError."""
        with self._connection.cursor() as cursor:
            try:
                tree = _parse(cursor, sql)
                walk = _Walk()
                walk.node(tree["statements"][0], frozenset())
                rewritten = self._writer.sql(cursor, tree)
            except RecursionError:
                raise RefusedError("The SQL is nested too deeply.") from None
        if rewritten is None:
            raise RefusedError(
                "This SQL is not let through, for DuckDB does not write it back as it reads it: use"
                " plain names, and a subquery in place of a join in brackets."
            )
        return GuardedSql(
            rewritten,
            frozenset(walk.tables),
            walk.past,
            frozenset(walk.parameters),
        )


def _parse(cursor: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    tree = parsed(cursor, sql)
    if tree["error"]:
        if tree.get("error_type") == "not implemented":
            raise RefusedError("Only SELECT is let through (SELECT, WITH, DESCRIBE, SUMMARIZE).")
        raise RefusedError(str(tree.get("error_message", "the SQL cannot be parsed")))
    if len(tree["statements"]) != 1:
        raise RefusedError("Send one statement at a time.")
    return tree


class _Walk:
    """Visits the tree; `ctes` are the names of WITH that DuckDB sees at a node.

    They have to be exactly those: a table name that the walk takes for a name of WITH, and DuckDB does
    not, would be looked up in the catalog and then among the files.
    """

    def __init__(self) -> None:
        self.tables: set[str] = set()
        self.past: dict[str, tuple[str, At]] = {}
        self.parameters: set[str] = set()
        self._named = self._selects = 0

    def node(self, node: dict[str, Any], ctes: frozenset[str]) -> None:
        for entry in (node.get("cte_map") or {}).get("map") or []:
            # A query of WITH sees those before it, not itself and not those after it.
            self.node(entry["value"], ctes)
            if _folded(entry["key"]).startswith(HIDDEN):
                raise RefusedError(f"A name of WITH must not begin with {HIDDEN}.")
            # Put in at each place that names it, 25 of them become 2^25 tables.
            if entry["value"].get("materialized") == "CTE_MATERIALIZE_NEVER":
                entry["value"]["materialized"] = "CTE_MATERIALIZE_DEFAULT"
            ctes = ctes | {_folded(entry["key"])}
        kind = node.get("type")
        if kind == "BASE_TABLE":
            self._table(node, ctes)
        elif kind == "TABLE_FUNCTION":
            self._table_function(_folded(node["function"]["function_name"]))
        elif kind == "SHOW_REF":
            self._show(node)
        elif kind == "COLUMN_REF":
            _shorten(node)
        elif kind == "SELECT_NODE":
            self._select()
        elif kind == "VALUE_PARAMETER":
            self._parameter(node["identifier"])
        if node.get("id") == "VARIANT":
            raise RefusedError("The type VARIANT is not let through.")
        if node.get("class") in ("FUNCTION", "WINDOW"):
            self._function(_folded(node.get("function_name")), node)
        inner = ctes
        if kind == "RECURSIVE_CTE_NODE":
            inner = ctes | {_folded(node.get("cte_name"))}
        for name, value in node.items():
            if name == "cte_map":
                continue
            # Only the second part of a recursive query sees itself.
            self._children(value, ctes if name == "left" else inner)

    def _children(self, value: Any, ctes: frozenset[str]) -> None:
        if isinstance(value, dict):
            self.node(value, ctes)
        elif isinstance(value, list):
            for item in value:
                self._children(item, ctes)

    def _count(self) -> None:
        self._named += 1
        if self._named > _MOST_TABLES:
            raise RefusedError(f"The SQL names more than {_MOST_TABLES} tables.")

    def _select(self) -> None:
        self._selects += 1
        if self._selects > _MOST_SELECTS:
            raise RefusedError(f"The SQL has more than {_MOST_SELECTS} SELECTs.")

    def _table_function(self, name: str) -> None:
        self._count()
        if name not in _TABLE_FUNCTIONS:
            raise RefusedError(
                f"Table function {name!r} is not let through;"
                f" there are {', '.join(sorted(_TABLE_FUNCTIONS))}."
            )

    def _function(self, name: str, node: dict[str, Any]) -> None:
        if name.startswith(HIDDEN):
            raise RefusedError(f"Function {name!r} is not let through.")
        if reason := refused_name(name) or refused_call(name, node):
            raise RefusedError(reason)

    def _parameter(self, name: str) -> None:
        if _PARAMETER.fullmatch(name) is None:
            raise RefusedError(f"Name parameters with letters, digits and _, not {name!r}.")
        self.parameters.add(name)

    def _table(self, node: dict[str, Any], ctes: frozenset[str]) -> None:
        catalog, schema, name = (
            _folded(node[part]) for part in ("catalog_name", "schema_name", "table_name")
        )
        self._count()
        at, node["at_clause"] = node["at_clause"], None
        if not catalog and not schema and name in ctes:
            if at:
                raise not_timed(name)
            return
        full = f"{schema}.{name}" if schema else name
        if catalog or not is_table(full):
            raise no_table(full)
        view = self._past(full, _moment(at)) if at else view_name(full)
        if not at:
            self.tables.add(full)
        node["alias"] = node["alias"] or node["table_name"]
        node["schema_name"], node["table_name"] = "", view

    def _past(self, table: str, at: At) -> str:
        """The name of the view of a table as it was."""
        if not is_timed(table):
            raise not_timed(table)
        for view, known in self.past.items():
            if known == (table, at):
                return view
        view = f"{view_name(table)}__at_{len(self.past)}"
        self.past[view] = (table, at)
        return view

    def _show(self, node: dict[str, Any]) -> None:
        # DESCRIBE and SUMMARIZE have a query; SHOW TABLES and its like have a name.
        if not node.get("query"):
            raise RefusedError(f"DESCRIBE takes a SELECT or one of {', '.join(TABLES)}.")


def _moment(clause: Mapping[str, Any]) -> At:
    value = clause["expr"]
    if value.get("class") == "CAST":
        value = value["child"]
    constant = value["value"]["value"] if value.get("class") == "CONSTANT" else None
    if isinstance(constant, bool) or not isinstance(constant, int | str):
        raise RefusedError(
            "AT takes a constant: events AT (VERSION => 12), or events AT (TIMESTAMP =>"
            " '2025-11-25T10:00:00Z')."
        )
    return At(_folded(clause["unit"]).upper(), constant)


def _folded(name: Any) -> str:
    """A name as DuckDB compares it: only ASCII letters have a case (Python's `lower` makes a k of the
    Kelvin sign).
    """
    return str(name or "").encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def _shorten(node: dict[str, Any]) -> None:
    """`silver.events.source_id` to `events.source_id`: the view has the table's short name."""
    names = node.get("column_names") or []
    if len(names) > 2 and is_table(".".join(names[:2]).lower()):
        del names[0]
