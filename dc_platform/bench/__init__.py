"""Benchmarks: what is measured is run beside something to compare it with, in one window.

workload.py    the events, and their blocks in each format
base_lake.py   the lake that is not empty: 20,000,000 events in the same hours
plain_loop.py  the measure: one table, nothing checked, nothing deduplicated
landing.py     `dcp bench landing`
freshness.py   `dcp bench freshness`
soak*.py       `dcp bench soak`
measure.py     children with their CPU seconds and peak memory
"""
