"""Benchmarks: what is measured is run beside something to compare it with, in one window.

measure.py       children with their CPU seconds and peak memory
workload.py      the events, and their blocks in each format
base_lake.py     the lake that is not empty: 20,000,000 events in the same hours
plain_loop.py    the measure: one table, nothing checked, nothing deduplicated
contenders.py    what drains the same topics: the platform, the loop, others (`benchmarks/`)
landing.py       `dcp bench landing`
stack.py         a real stack, for the benches below
probes.py        single events, and the time until a query has them
freshness.py     `dcp bench freshness`
stencil.py       blocks that cost a load generator almost nothing
flood_load.py    the process that sends them; flood_child.py: as the bench sees it
flood_lake.py    silver's commits with their times, and the audit
flood_figures.py ages and lag, from the two logs
usage.py         memory and CPU of the parts of a stack
flood.py         `dcp bench flood`
soak*.py         `dcp bench soak`
query_lake.py, query_base.py, query_gold.py   30 days of events and their gold, kept from run to run
query_fresh.py   the hour before a run, and its tail
query_classes.py what is asked
query_load.py    clients that ask; query_api.py, query_duckdb.py, query_clickhouse.py: whom
query.py, query_peers.py   `dcp bench query`
"""
