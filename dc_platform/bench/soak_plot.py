"""The picture of a soak: what stays flat."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def plot_soak(samples: Sequence[dict[str, Any]], path: Path) -> None:
    """Write a PNG: commit latency, live and log files, memory, disk, over the commits."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    commits = [sample["commits"] for sample in samples]
    figure = Figure(figsize=(8, 9), dpi=110, layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    panels: list[tuple[str, dict[str, list[float]]]] = [
        ("ms per landing", {n: [s[n] for s in samples] for n in ("p50_ms", "p95_ms", "cpu_ms")}),
        ("live files", _by_table(samples, "live_files")),
        ("log files", _by_table(samples, "log_files")),
        ("MB", {n: [s[n] for s in samples] for n in ("rss_mb", "lake_mb", "dagster_mb")}),
    ]
    for axis, (label, lines) in zip(axes, panels, strict=True):
        for name, values in lines.items():
            axis.plot(commits, values, linewidth=1.2, label=name)
        axis.set_ylabel(label, fontsize=9)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=8)
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, ncols=5, loc="upper left", frameon=False)
    axes[-1].set_xlabel("commits", fontsize=9)
    figure.savefig(path)


def _by_table(samples: Sequence[dict[str, Any]], name: str) -> dict[str, list[float]]:
    return {table: [sample[name][table] for sample in samples] for table in samples[0][name]}
