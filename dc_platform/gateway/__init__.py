"""The gateway: events come in, validated and keyed blocks go to Kafka, then the answer goes out.

routes.py      HTTP to `ingest` and back; nothing else
body.py        a request's bytes, within limits, decompressed
auth.py        whose key it is
ingest.py      the protocol-free way in: judge, give ids, hand to the batcher
batcher.py     events of many requests to Kafka blocks
sampling.py    the sampling rate of each source, for the blocks' headers
acks.py        what Kafka acknowledged, to a topic of its own, for the ledger
journal.py     and to a local file before that, so that it outlives the process
pressure.py    back-pressure and the circuit breaker in front of Kafka
activity.py    what each source sends, for the registry
admin.py       sources and tokens over HTTP
metrics_admin.py   definitions of metrics over HTTP
"""
