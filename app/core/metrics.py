"""What the frontend counts, for Prometheus. One registry an application, never the global one."""

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

METRICS_CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The frontend's counters. No label takes a value that a client chooses, so none can grow."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._request_kinds: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self.requests = Counter(
            "dms_http_requests",
            "HTTP requests served",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "dms_http_request_seconds",
            "Time from a request's head to the head of its response, in seconds",
            ["route"],
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5),
            registry=self.registry,
        )
        self.dispatches = Counter(
            "dms_dispatch_events",
            "Events that the dispatcher settled, by what became of them",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.outbox_depth = Gauge(
            "dms_outbox_events", "Events not dispatched yet", ["state"], registry=self.registry
        )
        self.breaker_open = Gauge(
            "dms_scheduler_breaker_open",
            "1 while dispatching is paused because the scheduler does not answer",
            registry=self.registry,
        )
        self.purged = Counter(
            "dms_tasks_purged", "Expired tasks removed by this process", registry=self.registry
        )
        self.live_streams = Gauge(
            "dms_live_streams", "Open server-sent event streams", registry=self.registry
        )
        self.fenced_writes = Gauge(
            "dms_fenced_writes", "Stale writes of workers refused so far", registry=self.registry
        )

        self.webhook_calls = Counter(
            "dms_webhook_calls",
            "Calls of webhooks by what became of them",
            ["webhook", "outcome"],
            registry=self.registry,
        )

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. Finding a counter by its labels is dear, so those found are kept."""
        kind = (method, route, status)
        found = self._request_kinds.get(kind)
        if found is None:
            labels = self.requests.labels(method, route, str(status))
            found = self._request_kinds[kind] = (labels, self.request_seconds.labels(route))
        found[0].inc()
        found[1].observe(seconds)

    def render(self) -> bytes:
        """All values in the text format that METRICS_CONTENT_TYPE names."""
        return generate_latest(self.registry)
