"""Kafka records to judged columns. Pure: the same records give the same table, at any time.

`decoder.Decoder` is what landing, the tail, backfills and `dcp land` all call. It sends each record
to one of four readers by its headers:

    blocks.py     NDJSON that a gateway wrote: cut and typed in columns, 1 µs an event
    rejects.py    Arrow of rejected events that a gateway wrote
    strangers.py  JSON or NDJSON that anyone wrote: judged event by event, strictly
    arrow.py      Arrow of events that anyone wrote: judged in columns

and lets `sampling.py` say which events of gateways' blocks are left out.
"""
