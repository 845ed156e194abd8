"""Errors of the event system: one base, each message with its cause and remedy."""


class EventSystemError(Exception):
    """Base of every error of `app.event_system`."""


class TopicError(EventSystemError, ValueError):
    """A topic or pattern that means nothing; says which, why, and what is allowed."""


class SubscribeError(EventSystemError, ValueError):
    """Options of a subscription that mean nothing, or that this broker cannot offer."""


class ConfigurationError(EventSystemError, ValueError):
    """What a broker was given to connect to means nothing."""


class EventEncodeError(EventSystemError, ValueError):
    """The event cannot travel: its fields are not JSON, or it is larger than the limit."""


class EventDecodeError(EventSystemError, ValueError):
    """A payload does not fit the type that the consumer asked for."""


class QueueFullError(EventSystemError):
    """A subscription whose policy is `error` is full: nobody got the event; try again later."""


class ClosedError(EventSystemError):
    """The broker, publisher or consumer was closed; open another."""


class BrokerUnavailableError(EventSystemError):
    """The broker's server did not answer. Whether the event was stored is unknown: publish it
    again with the same event_id, by which consumers tell a repeat."""
