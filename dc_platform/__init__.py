"""The data collection platform; read the folders in the order of `STAGES`.

    gateway ──▶ broker ──▶ decode ──▶ landing ──▶ lake ──▶ gold ─────▶ serving
    accepts     Kafka,     records    batches     Delta    aggregates  answers, from the
    events      the        to judged  to commits, tables   of touched  tables and from what
                write-     columns    each event           hours       has not landed yet
                ahead log             once

Beside the way of the data: `contracts` (what an event is), `registry` (who may
send, who holds a lease), `retention` (what becomes old, or has to go), `search`
(the index of words), `orchestration` (Dagster over all of it), `stack` (the parts
on one machine), `demo`, `bench` and `cli`.
"""

import os

# numpy's BLAS, which nothing here uses, starts a thread for each core: 0.2 CPU seconds of a process's
# start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"

STAGES = ("gateway", "broker", "decode", "landing", "lake", "gold", "serving", "orchestration")
