"""Real events for a first look: three days of US flights replayed, and this host's own telemetry.

Both go the way of any client: over HTTP, with a key, with ids, sent again until acknowledged.
"""
