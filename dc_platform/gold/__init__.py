"""Gold: which hours of silver changed, their aggregates by dbt, and the commit that publishes them.

Read `run.py` first: pin, find what is pending, build into a scratch file, test there, publish.
"""
