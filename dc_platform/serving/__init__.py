"""Answers, from the tables and from what Kafka has that is not in them yet.

tail.py       follows Kafka and silver; publishes a new view of the union whenever either moves
progress.py   how much of Kafka the tail holds, measured by its ends
pile.py       all pieces of the tail, and its bounds
chunks.py     pieces of the tail, in memory or spilled
view.py       one moment of the union: a silver version, its border, the tail after it
recent.py     the newest rows of silver, in memory
readers.py, reader.py   the processes that answer light queries, and what goes on in one of them
light.py      which queries these are, and their DuckDB
mirror.py, wire.py   how views and queries get to them
forks.py      processes that serving starts
engine.py     DuckDB over a view, without files, network or settings for its users
instance.py   instances of DuckDB that reach nothing else
rows.py       the rows of a running query, and its time
guard.py      which SQL is let through
past.py       views of silver as it was, without what was deleted since
views.py      which view a request is answered from
turns.py, limits.py   whose query runs next, and how much memory a process may take
sql.py        answers to SQL, as streams
sql_pool.py   the processes that run it, and their end
sql_worker.py what goes on in one of them
tail_files.py pieces of the tail as files for them
reports.py    saved reports
query.py      POST /api/v1/query (design 4.2) to SQL
metrics.py    GET /api/v1/metrics/{name} (design 4.2)
series.py     gaps, moving averages and comparisons of its datapoints
sketch_functions.py   SQL functions over the sketches of gold
search.py     POST /api/v1/search: the index, and what it does not have yet
search_index.py  the index beside a version of silver
fresh.py      the words of events that are not in the index
highlights.py why an event was found
results.py    rows to JSON, CSV and Arrow
values.py     Arrow's values as JSON has them
streams.py    an answer that is streamed: its end, its errors, readers that leave
refusals.py   errors to statuses, and the sentence that says what is wrong with a body
health.py     the health of the platform (design 4.4)
rollup.py     what monitoring counts of a file or a chunk, once
monitor.py    the last day at one moment, from those counts
measures.py   rates, lag and latencies of a tenant in a window
overview.py, alerts.py, sizes.py   what the dashboard shows
monitoring.py GET /api/v1/monitoring/… (design 4.4)
page.py       the dashboard's files, and what a browser may do with them
quarantine.py what was rejected: counts, examples, bytes, replays
pages.py      pages for people, and the login to them
routes.py, quarantine_routes.py, app.py   HTTP and wiring
"""
