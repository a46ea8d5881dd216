"""Figures and pictures that Dagster's UI shows for an asset."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import dagster as dg

from dc_platform.contracts.tables import TableSpec, column_doc
from dc_platform.landing.lander import Totals

_DUCKDB_NAMES = {"timestamp[us, tz=UTC]": "timestamp (UTC)", "date32[day]": "date"}


def column_schema(spec: TableSpec) -> dg.TableSchema:
    """The columns of a table with their meaning."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                field.name,
                _DUCKDB_NAMES.get(str(field.type), str(field.type)),
                description=column_doc(spec, field.name),
            )
            for field in spec.columns
        ]
    )


def figures_schema(columns: Mapping[str, str]) -> dg.TableSchema:
    """The columns of the figures that an asset reports, name → meaning, for one that is no table."""
    return dg.TableSchema(
        columns=[dg.TableColumn(name, description=meaning) for name, meaning in columns.items()]
    )


def figures_table(rows: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """Rows of figures with the same names, as a table in Markdown."""
    names = list(rows[0]) if rows else []
    lines = [names, ["---"] * len(names), *([_shown(row[n]) for n in names] for row in rows)]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def landing_metadata(
    totals: Totals, *, slot: str, lag: int | None, seconds: float, table_rows: int | None
) -> dict[str, Any]:
    """What a landing run has done so far. `lag` is in Kafka records of its slot."""
    metadata: dict[str, Any] = {
        "landing slot": slot,
        "received": totals.received,
        "landed": totals.landed,
        "duplicates": totals.duplicates,
        "rejected": totals.rejected,
        "sampled out": totals.sampled,
        "commits": totals.commits,
        "bytes": totals.bytes,
        "rows per second": round(totals.received / seconds, 1) if seconds else 0.0,
        "offsets": dg.MetadataValue.json({str(p): o for p, o in sorted(totals.offsets.items())}),
        "silver version": totals.silver_version,
    }
    if table_rows is not None:
        metadata["dagster/row_count"] = table_rows
    if lag is not None:
        metadata["lag (records)"] = lag
    if totals.gaps:
        metadata["gaps"] = totals.gaps
    if totals.recent:
        metadata["seconds in Kafka before the commit"] = round(totals.recent[-1][2], 3)
        metadata["plot"] = dg.MetadataValue.md(landing_plot(totals.recent))
    return metadata


def landing_plot(recent: list[tuple[datetime, int, float]]) -> str:
    """A small picture as Markdown: rows per commit, and how long their oldest waited in Kafka."""
    figure = _figure()
    times = [at for at, _, _ in recent]
    rows, delay = figure.subplots(2, 1, sharex=True)
    rows.vlines(times, 0, [n for _, n, _ in recent], color="#4f6bed", linewidth=1.5)
    rows.set_ylabel("rows / commit", fontsize=8)
    delay.plot(times, [d for _, _, d in recent], color="#c2410c", linewidth=1.2, marker=".")
    delay.set_ylabel("s in Kafka", fontsize=8)
    return _picture("landing", figure, (rows, delay))


def sizes_plot(history: Sequence[tuple[datetime, Mapping[str, Sequence[int]]]]) -> str:
    """A small picture as Markdown: MiB and files of each table over time, table → [files, bytes]."""
    figure = _figure()
    sizes, files = figure.subplots(2, 1, sharex=True)
    names = sorted({name for _, tables in history for name in tables})
    for name in names:
        points = [(at, tables[name]) for at, tables in history if name in tables]
        times = [at for at, _ in points]
        sizes.plot(times, [size / 2**20 for _, (_, size) in points], label=name, marker=".", lw=1)
        files.plot(times, [count for _, (count, _) in points], marker=".", lw=1)
    sizes.set_ylabel("MiB", fontsize=8)
    files.set_ylabel("files", fontsize=8)
    sizes.legend(fontsize=6, ncols=2, frameon=False)
    return _picture("tables", figure, (sizes, files))


def _figure() -> Any:
    # Imported here: 0.5 s that only a report pays for.
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    return Figure(figsize=(6.4, 2.6), dpi=100, layout="constrained")


def _picture(name: str, figure: Any, axes: Sequence[Any]) -> str:
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return f"![{name}](data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()})"


def tiers_plot(standing: list[dict[str, Any]]) -> str:
    """A small picture as Markdown: bytes of each table by tier."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.9), dpi=100, layout="constrained")
    axis = figure.subplots()
    tables = list(dict.fromkeys(row["table"] for row in standing))
    left = dict.fromkeys(tables, 0.0)
    for tier, color in (("hot", "#c2410c"), ("warm", "#f0b429"), ("cold", "#4f6bed")):
        sizes = [
            sum(r["bytes"] for r in standing if (r["table"], r["tier"]) == (table, tier)) / 1e6
            for table in tables
        ]
        axis.barh(tables, sizes, left=list(left.values()), color=color, label=tier)
        left = {table: left[table] + size for table, size in zip(tables, sizes, strict=True)}
    axis.set_xlabel("MB", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False)
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    return f"![tiers](data:image/png;base64,{base64.b64encode(sink.getvalue()).decode()})"
