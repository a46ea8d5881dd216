"""The whole platform on one machine: real parts, started without Docker.

`artifacts` and `java` get the programs, `kafka` and `trino` configure one each, `parts` says what a
stack consists of, `supervisor` keeps it running, `ending` ends it, `launch` is what `dcp up` and
`dcp down` call. What runs is known by process id and start time, never by name.
"""
