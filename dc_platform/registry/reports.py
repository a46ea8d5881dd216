"""Saved reports, by tenant and name."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import select

from dc_platform.contracts.reports import Parameter, ParameterType, Report
from dc_platform.registry.database import Database, now_ms
from dc_platform.registry.models import ReportRow


class ReportExistsError(ValueError):
    """There is a report with this name already."""


class SavedReport(NamedTuple):
    """A report as it is kept; times in epoch milliseconds. `changed_by`: a token's hint, or cli."""

    report: Report
    created_ms: int
    changed_ms: int
    changed_by: str

    def shown(self) -> dict[str, Any]:
        """As the API has it."""
        return {
            "name": self.report.name,
            **_definition(self.report),
            "createdAt": self.created_ms,
            "changedAt": self.changed_ms,
            "changedBy": self.changed_by,
        }


class Reports:
    """Reads and writes reports. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, report: Report, *, by: str, tenant_id: str = "default") -> SavedReport:
        """A new report; raises ReportExistsError."""
        with self._database.session() as session:
            if session.get(ReportRow, (tenant_id, report.name)) is not None:
                raise ReportExistsError(f"There is a report {report.name} already; PUT changes it.")
            row = ReportRow(tenant_id=tenant_id, name=report.name, created_ms=now_ms())
            session.add(row)
            return _written(row, report, by)

    def change(self, report: Report, *, by: str, tenant_id: str = "default") -> SavedReport | None:
        """Another definition for the report with its name; None when there is none."""
        with self._database.session() as session:
            row = session.get(ReportRow, (tenant_id, report.name))
            return None if row is None else _written(row, report, by)

    def delete(self, name: str, *, tenant_id: str = "default") -> bool:
        """Delete a report; False when there is none."""
        with self._database.session() as session:
            row = session.get(ReportRow, (tenant_id, name))
            if row is None:
                return False
            session.delete(row)
            return True

    def get(self, name: str, *, tenant_id: str = "default") -> SavedReport | None:
        """One report."""
        with self._database.reading() as session:
            row = session.get(ReportRow, (tenant_id, name))
            return None if row is None else _saved(row)

    def list(self, tenant_id: str = "default") -> list[SavedReport]:
        """All reports of a tenant, by name."""
        query = select(ReportRow).where(ReportRow.tenant_id == tenant_id).order_by(ReportRow.name)
        with self._database.reading() as session:
            return [_saved(row) for row in session.scalars(query)]


def _written(row: ReportRow, report: Report, by: str) -> SavedReport:
    row.definition = _definition(report)
    row.changed_ms = now_ms()
    row.changed_by = by
    return _saved(row)


def _saved(row: ReportRow) -> SavedReport:
    stored = row.definition
    report = Report(
        row.name,
        stored["sql"],
        stored["query"],
        {
            name: Parameter(ParameterType(parameter["type"]), parameter["default"])
            for name, parameter in stored["parameters"].items()
        },
        stored["description"],
    )
    return SavedReport(report, row.created_ms, row.changed_ms, row.changed_by)


def _definition(report: Report) -> dict[str, Any]:
    return {
        "sql": report.sql,
        "query": None if report.query is None else dict(report.query),
        "parameters": {
            name: {"type": parameter.type.value, "default": parameter.default}
            for name, parameter in report.parameters.items()
        },
        "description": report.description,
    }
