"""The tables that a tenant has by its own names: `ref.NAME` and `typed.NAME`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dc_platform.contracts.shapes import Shape
from dc_platform.errors import ConfigurationError
from dc_platform.lake.reference import Reference, References
from dc_platform.lake.store import Lake
from dc_platform.lake.table import sql_list
from dc_platform.serving.guard import no_table
from dc_platform.serving.typed import typed_sql

# Tenant → its shapes by name.
ShapesOf = Callable[[str], Mapping[str, Shape]]


def no_shapes(_tenant_id: str) -> Mapping[str, Shape]:
    """Where nobody registers schemas."""
    return {}


class OwnTables:
    """Finds them by name, as they are now."""

    def __init__(self, lake: Lake, shapes: ShapesOf = no_shapes) -> None:
        self._references = References(lake)
        self._shapes = shapes

    def names(self, tenant_id: str) -> list[str]:
        """What there is, as in SQL."""
        own = [f"ref.{name}" for name in self._references.names(tenant_id)]
        return own + [f"typed.{name}" for name in sorted(self._shapes(tenant_id))]

    def sql(self, table: str, tenant_id: str, events: str) -> str:
        """A SELECT for `ref.NAME` or `typed.NAME`; `events` is one of the union, of this tenant.

        Raises RefusedError when there is no such table.
        """
        layer, name = table.split(".")
        if layer == "ref":
            reference = self._reference(tenant_id, name)
            if reference is not None:
                return f"select * from read_parquet({sql_list(reference.paths)})"
        elif (shape := self._shapes(tenant_id).get(name)) is not None:
            wanted = {e.reference for e in shape.enrichments}
            found = {n: r for n in wanted if (r := self._reference(tenant_id, n)) is not None}
            return typed_sql(shape, found, events)
        raise no_table(table, self.names(tenant_id))

    def _reference(self, tenant_id: str, name: str) -> Reference | None:
        try:
            return self._references.get(tenant_id, name)
        except ConfigurationError:
            return None
