"""What the server counts, as Prometheus reads it. Takes events from `worker` and `security`; gives text to `app`.

Labels are route templates, known methods and status codes, so that no client can make the list grow.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

LATENCIES = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 64)


class Metrics:
    """The numbers of one server, in a registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        names = ["route", "method", "status"]
        self.requests = Counter("duovox_requests", "Requests answered (status 499: the client left)", names, registry=registry)
        self.latency = Histogram("duovox_request_seconds", "Time to answer", ["route"], registry=registry, buckets=LATENCIES)
        self.queue = Gauge("duovox_queue_clips", "Clips and sounds that wait", registry=registry)
        self.batch = Histogram("duovox_batch_clips", "Clips and sounds of a batch", registry=registry, buckets=BATCHES)
        self.clips = Counter("duovox_clips", "Clips generated", registry=registry)
        self.refused = Counter("duovox_refused", "Requests refused because the queue was full", registry=registry)
        self.computing = Counter("duovox_computing_seconds", "Time spent on batches", registry=registry)
        ProcessCollector(registry=registry)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Ask `length` for the clips that wait whenever somebody looks."""
        self.queue.set_function(length)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)
