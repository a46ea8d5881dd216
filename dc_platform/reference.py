"""The reference pages that follow from the code: settings and tables. `make docs` writes them."""

from __future__ import annotations

from pathlib import Path

from dc_platform.contracts.reasons import REMEDIES
from dc_platform.contracts.tables import TABLES, column_doc
from dc_platform.settings import Settings

_NOTE = "<!-- Written by `make docs`; a test fails when it is stale. -->\n"


def settings_page() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        _NOTE,
        "Every setting is an environment variable, read once when a process starts. `dcp up` passes"
        " the caller's on to all parts.",
        "",
        "| variable | default | meaning |",
        "| --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        default = "" if field.default == "" else f"`{field.default}`"
        lines.append(f"| `DCP_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def tables_page() -> str:
    """docs/tables.md."""
    lines = [
        "# Tables",
        "",
        _NOTE,
        "Delta tables below the lake's root, one directory per `layer/table`, readable by DuckDB,"
        " Trino, Polars and Spark. Times are UTC microseconds. In SQL there is also `events`, the"
        " union of `silver.events` and what has not landed yet, with the columns of silver but for"
        " `ingest_date`.",
    ]
    for spec in TABLES:
        lines += [
            "",
            f"## `{spec.name}`",
            "",
            spec.description
            + (f" Partitioned by `{spec.partition_by}`." if spec.partition_by else ""),
            "",
            "| column | type | meaning |",
            "| --- | --- | --- |",
        ]
        lines += [f"| `{f.name}` | {f.type} | {column_doc(spec, f.name)} |" for f in spec.columns]
    lines += ["", "## Reasons of a rejection", "", "| reason | what to do |", "| --- | --- |"]
    lines += [f"| `{reason.value}` | {remedy} |" for reason, remedy in REMEDIES.items()]
    return "\n".join(lines) + "\n"


PAGES = {"settings.md": settings_page, "tables.md": tables_page}


def write(directory: Path) -> list[Path]:
    """Write all pages; gives their paths."""
    written = []
    for name, page in PAGES.items():
        path = directory / name
        path.write_text(page())
        written.append(path)
    return written


if __name__ == "__main__":
    for written_path in write(Path("docs")):
        print(written_path)
