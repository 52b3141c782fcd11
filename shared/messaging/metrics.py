"""The figures of every room about its messages. Labels are types and outcomes, never people, keys or jobs."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.errors import Code

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._handled = Counter("rakkan_requests", "Messages handled", ("type", "outcome"), registry=registry)
        self._seconds = Histogram(
            "rakkan_request_seconds", "Time in the handler", ("type",), registry=registry, buckets=_SECONDS
        )
        self._in_hand = Gauge("rakkan_in_hand", "Messages being handled now", ("type",), registry=registry)
        self._hands = Gauge("rakkan_hands", "Messages of one queue that may be in hand at once", registry=registry)
        self._refused = Counter(
            "rakkan_envelopes_refused", "Messages whose envelope did not hold", ("code",), registry=registry
        )

    @classmethod
    def unregistered(cls) -> "Metrics":
        """For a sender without a metrics page."""
        return cls(CollectorRegistry())

    def handled(self, type_: str, outcome: str, took_s: float) -> None:
        self._handled.labels(type_, outcome).inc()
        self._seconds.labels(type_).observe(took_s)

    def may_hold(self, messages: int) -> None:
        self._hands.set(messages)

    def refused_envelope(self, code: Code) -> None:
        self._refused.labels(code).inc()

    @contextmanager
    def in_hand(self, type_: str) -> Iterator[None]:
        with self._in_hand.labels(type_).track_inprogress():
            yield
