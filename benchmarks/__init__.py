"""Benchmarks beside other systems. Their packages live in benchmarks/.venv, apart from the platform."""
