"""A tree as a condition of SQL over a column of words (`analysis.py`).

An event has a phrase when its text has it with a space on either side, and a prefix when it has it with
a space before it.
"""

from __future__ import annotations

from typing import Any

from dc_platform.search.analysis import joined
from dc_platform.search.language import AllOf, Not, Phrase, Tree


def condition(tree: Tree, parameters: dict[str, Any], column: str = "words") -> str:
    """The condition; the values that it names go into `parameters`."""
    if isinstance(tree, Phrase):
        name = f"w{len(parameters)}"
        text = joined(tree.words)
        parameters[name] = text.rstrip() if tree.prefix else text
        return f"contains({column}, ${name})"
    if isinstance(tree, Not):
        return f"not {condition(tree.inner, parameters, column)}"
    between = " and " if isinstance(tree, AllOf) else " or "
    return f"({between.join(condition(part, parameters, column) for part in tree.parts)})"
