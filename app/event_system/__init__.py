"""The event system: topics, brokers, publishers, consumers. It knows nothing of tasks."""

from app.event_system.domain.errors import (
    BrokerUnavailableError,
    ClosedError,
    ConfigurationError,
    EventDecodeError,
    EventEncodeError,
    EventSystemError,
    QueueFullError,
    SubscribeError,
    TopicError,
)
from app.event_system.domain.events import MAX_EVENT_BYTES, EventBase, next_event_id
from app.event_system.domain.ports import (
    BrokerPort,
    ConsumerPort,
    DeadLetter,
    Delivery,
    Overflow,
    PublisherPort,
    QueueInfo,
    SubscribeOptions,
    Subscription,
)
from app.event_system.domain.topics import TopicTrie, check_pattern, check_topic, matches

__all__ = [
    "MAX_EVENT_BYTES",
    "BrokerPort",
    "BrokerUnavailableError",
    "ClosedError",
    "ConfigurationError",
    "ConsumerPort",
    "DeadLetter",
    "Delivery",
    "EventBase",
    "EventDecodeError",
    "EventEncodeError",
    "EventSystemError",
    "Overflow",
    "PublisherPort",
    "QueueFullError",
    "QueueInfo",
    "SubscribeError",
    "SubscribeOptions",
    "Subscription",
    "TopicError",
    "TopicTrie",
    "check_pattern",
    "check_topic",
    "matches",
    "next_event_id",
]
