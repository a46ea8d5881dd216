"""`make bench-landing`: Kafka into Delta by the platform, by a plain loop, by Spark and by dlt.

They drain the same topics in turn, in one window; each table is counted afterwards.

peers.py        Spark and dlt as contenders of `dc_platform.bench.landing`
ratios.py       the platform's figures over theirs
spark_drain.py  run by the Python of benchmarks/.venv: Spark Structured Streaming + Delta
dlt_drain.py    run by the same: dlt, Arrow tables, Delta
"""
