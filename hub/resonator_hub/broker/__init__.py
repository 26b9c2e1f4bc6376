"""The embedded MQTT 5 broker: for one machine and for tests, on loopback only.

QoS 0 and 1, retained messages, wills with delay, sessions that outlive connections in memory, flow control
both ways. Not there, and said so in CONNACK: QoS 2, shared subscriptions, subscription ids, topic aliases.
Message expiry is passed on, not counted down.
"""

from resonator_hub.broker.embedded import EmbeddedBroker
from resonator_hub.broker.faults import Faults

__all__ = ["EmbeddedBroker", "Faults"]
