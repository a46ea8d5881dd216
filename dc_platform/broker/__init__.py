"""The Kafka edge: the only package that imports a Kafka client.

`reader` gives what reads: `librdkafka` (confluent-kafka) where it is installed, else `client`
(kafka-python), which administers, too. `producer` is the gateway's way in (aiokafka, because it
measured twice as fast for single events inside an event loop), `records` is what they exchange.
"""
