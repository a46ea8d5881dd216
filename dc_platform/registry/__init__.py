"""The registry: sources, their keys, tokens, metrics, and the leases of landing slots.

SQLAlchemy over SQLite by default, over PostgreSQL by one URL; the schema is made by the migrations
in `migrations/`. Only this package imports SQLAlchemy.
"""
