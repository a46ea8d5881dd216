"""The Kafka edge: the only package that imports a Kafka client.

`client` reads and administers (kafka-python), `producer` is the gateway's way in (aiokafka, because
it measured twice as fast for single events inside an event loop), `records` is what they exchange.
"""
