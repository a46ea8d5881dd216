"""Dagster over all of it: assets and their lineage, the landing sensor, checks as alerts.

landing_run.py  one long landing run inside a Dagster run: lease, loop, reports
assets.py       the Kafka topic, bronze, silver, quarantine
sensor.py       keeps each landing slot manned
checks.py       the promises, as asset checks
metadata.py     figures and pictures that the UI shows
"""
