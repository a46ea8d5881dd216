"""Batches of records to commits, each event once.

`batch` splits judged rows into the rows of bronze, quarantine and silver; `identities` knows which
events are in silver already; `commits` writes the three tables in the order that makes a crash
between any two of them harmless; `reader` and `lander` are the loop. Its right to write is a lease of
the registry (`registry/leases.py`).
"""
