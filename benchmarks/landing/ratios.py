"""The platform's figures over its peers', and the table that a person reads.

A ratio stands for events per second on the same topic in the same run. `…_cold`: both in a process
that has just been started, its start included. `…_cold_started`: the same without the start (of
Python and its imports, of the JVM). `…_warm`: the platform without its start, as before, against
drains of a JVM that has drained the topic already. Spark cannot read Arrow records, so what it does
with the same events as NDJSON blocks, its better topic, stands against them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Figures = Mapping[str, float]

_RATE = "events_per_second"
_FROM_START = "from_start_events_per_second"
# Name of the ratio → (the peer's figures, the platform's rate, the peer's rate).
_RATIOS = {
    "spark_warm": ("spark_warm", _RATE, _RATE),
    "spark_cold_started": ("spark_cold", _RATE, _RATE),
    "spark_cold": ("spark_cold", _FROM_START, _FROM_START),
    "dlt": ("dlt", _RATE, _RATE),
}


def ratios(figures: Figures, formats: Sequence[str]) -> dict[str, float]:
    """`ndjson_vs_spark_warm` and its like, for every peer that was measured."""
    found = {}
    for format_ in formats:
        for name, (peer, our_rate, their_rate) in _RATIOS.items():
            for theirs, label in ((format_, ""), ("ndjson", "ndjson_")):
                rate = figures.get(f"{theirs}_{peer}_{their_rate}")
                if rate:
                    ours = figures[f"{format_}_{our_rate}"]
                    named = name.replace("spark_", f"spark_{label}")
                    found[f"{format_}_vs_{named}"] = round(ours / rate, 2)
                    break
    return found


_ROWS = (
    ("", "platform: bronze and silver, validated, deduplicated"),
    ("plain_loop", "plain loop: one table, nothing checked"),
    ("spark_cold", "Spark + Delta, new JVM: one table"),
    ("spark_warm", "Spark + Delta, 2nd and 3rd drain of the JVM"),
    ("dlt", "dlt, Arrow tables: one table"),
)


def table(figures: Figures, formats: Sequence[str]) -> str:
    """The figures in Markdown, a block of rows for each format."""
    lines = [
        "| input | system | events/s | with the process's start | CPU s | peak MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for format_ in formats:
        for name, text in _ROWS:
            prefix = f"{format_}_{name}" if name else format_
            if f"{prefix}_{_RATE}" in figures:
                from_start = figures.get(f"{prefix}_{_FROM_START}")
                lines.append(
                    f"| {format_} | {text} | {figures[f'{prefix}_{_RATE}']:,.0f}"
                    f" | {f'{from_start:,.0f}' if from_start else ''}"
                    f" | {figures[f'{prefix}_cpu_seconds']:.1f}"
                    f" | {figures[f'{prefix}_peak_rss_mb']:,.0f} |"
                )
    return "\n".join(lines)
