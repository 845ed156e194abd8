"""Brokers: in memory, and by way of Redis Streams. They pass one contract suite."""

from app.event_system.infrastructure.in_memory import (
    InMemoryBroker,
    InMemoryConsumer,
    InMemoryPublisher,
)
from app.event_system.infrastructure.redis_streams import (
    RedisBroker,
    RedisConsumer,
    RedisPublisher,
)

__all__ = [
    "InMemoryBroker",
    "InMemoryConsumer",
    "InMemoryPublisher",
    "RedisBroker",
    "RedisConsumer",
    "RedisPublisher",
]
