"""A tree of DuckDB's parser back to SQL, with the proof that DuckDB reads the SQL as that tree.

`json_deserialize_sql` leaves the relation of `"x".*` and parameters unquoted, forgets the brackets of
joins, doubles quotes in names of members and writes `1e10` as a decimal (DuckDB 1.5). So what can be
spelled otherwise is, and the SQL is parsed again: it is the tree's when that tree comes out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb

from dc_platform.contracts.fields import quoted

_WRITE = """
    select sql, json_serialize_sql(sql) from (select json_deserialize_sql(?::json) as sql)
"""
Node = dict[str, Any]


class Writer:
    """Thread-safe: whoever writes brings a cursor."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        # DuckDB writes VALUES as a subquery over them; this is what it puts around.
        tree = parsed(cursor, "from (values (1)) as valueslist")
        self._shell: Node = tree["statements"][0]["node"]["from_table"]
        _strip(self._shell)
        self._shell["subquery"]["node"]["from_table"] = None

    def sql(self, cursor: duckdb.DuckDBPyConnection, tree: Node) -> str | None:
        """The SQL of a tree, which is changed; None when DuckDB does not read it as that tree."""
        for node in _nodes(tree):
            _spell(node)
        expected = self._bare(json.loads(json.dumps(tree)))
        for node in _nodes(tree):
            if node.get("class") == "STAR" and node["relation_name"]:
                node["relation_name"] = quoted(node["relation_name"])
        try:
            row = cursor.execute(_WRITE, [json.dumps(tree)]).fetchone()
        except duckdb.Error:
            return None
        assert row is not None
        sql: str = row[0]
        return sql if self._bare(json.loads(row[1])) == expected else None

    def _bare(self, tree: Node) -> Node:
        """A tree without what may differ between two texts of the same meaning."""
        _strip(tree)
        # Children first: a subquery over VALUES may be within another one.
        for node in reversed(list(_nodes(tree))):
            if node.get("type") == "SUBQUERY":
                self._unwrap(node)
            elif node.get("type") == "VALUE_CONSTANT":
                _cast_constant(node, "BOOLEAN")
            elif len(node.get("group_sets") or ()) > 1:
                _sort_groups(node)
        return tree

    def _unwrap(self, node: Node) -> None:
        select = node["subquery"]["node"]
        values = select.get("from_table") or {}
        if values.get("type") == "EXPRESSION_LIST":
            select["from_table"] = None
            if node == self._shell:
                node.clear()
                node.update(values)
            else:
                select["from_table"] = values


def parsed(cursor: duckdb.DuckDBPyConnection, sql: str) -> Node:
    """What DuckDB's parser makes of SQL, or its error: `error` tells which."""
    row = cursor.execute("select json_serialize_sql(?::varchar)", [sql]).fetchone()
    assert row is not None
    tree: Node = json.loads(row[0])
    return tree


def _nodes(tree: Node) -> Iterator[Node]:
    """All nodes, each before those within it."""
    waiting: list[Any] = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _strip(tree: Node) -> None:
    for node in _nodes(tree):
        node.pop("query_location", None)


def _spell(node: Node) -> None:
    """Say the same in a way that DuckDB writes back."""
    kind = node.get("type")
    if kind == "VALUE_CONSTANT":
        _cast_constant(node, "DOUBLE")
    elif kind == "JOIN":
        for side in ("left", "right"):
            child = node[side]
            # Written as a comma, which binds less than every other join.
            within = side == "right" or node["ref_type"] != "CROSS"
            if child["type"] == "JOIN" and child["ref_type"] == "CROSS" and within:
                child["ref_type"] = "REGULAR"
                child["condition"] = _cast("t", "BOOLEAN")
    elif kind == "STRUCT_EXTRACT" and "'" in str(node["children"][1].get("value")):
        # As x['it''s'], for in x."it's" the quote is doubled.
        node["type"] = "ARRAY_EXTRACT"


def _cast_constant(node: Node, type_: str) -> None:
    """A constant of a type as the cast of its text."""
    value = node["value"]
    if value["type"]["id"] == type_ and not value["is_null"]:
        # DuckDB reads true as the cast of 't'.
        text = str(value["value"])[0].lower() if type_ == "BOOLEAN" else repr(value["value"])
        del node["value"]
        node.update(_cast(text, type_) | {"alias": node["alias"]})


def _cast(text: str, type_: str) -> Node:
    constant = {"type": {"id": "VARCHAR", "type_info": None}, "is_null": False, "value": text}
    return {
        "class": "CAST",
        "type": "OPERATOR_CAST",
        "alias": "",
        "child": {
            "class": "CONSTANT",
            "type": "VALUE_CONSTANT",
            "alias": "",
            "value": constant,
        },
        "cast_type": {"id": type_, "type_info": None},
        "try_cast": False,
    }


def _sort_groups(node: Node) -> None:
    """DuckDB numbers groups as they come in its sets."""
    names = [json.dumps(group, sort_keys=True) for group in node["group_expressions"]]
    node["group_sets"] = [sorted(names[n] for n in one) for one in node["group_sets"]]
    node["group_expressions"] = sorted(names)
