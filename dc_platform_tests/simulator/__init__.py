"""Thousands of lives of a lake in one process, each from a seed.

The real reader, decoder, committer, replay and backfill run over a Kafka, a store and a clock that
are made of lists. A schedule decides who goes on until which point, who is killed or frozen there,
and what breaks; whatever it was, what the client was told must be in the tables once, or be named in
`ops.gaps`. The fakes pass the same conformance tests as the real ones (`lake/test_table.py`,
`simulator/test_broker.py`).

    python -m dc_platform_tests.simulator --seed 17     one schedule, with its trace
    python -m dc_platform_tests.simulator --seeds 2000  many; prints the seeds that fail
"""
