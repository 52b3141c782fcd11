"""What the CA connector counts, for each CA. Labels are names of the registry and kinds, never orders or persons."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.ca_connector.breaker import BreakerState

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BREAKER = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        ca = ("authority",)
        self._seconds = Histogram(
            "rakkan_ca_seconds",
            "Time of one step at a CA, whatever came of it",
            ("authority", "step"),
            registry=registry,
            buckets=_SECONDS,
        )
        self._failures = Counter(
            "rakkan_ca_failures", "Steps at a CA that failed, by kind", ("authority", "kind"), registry=registry
        )
        self._orders = Gauge(
            "rakkan_ca_orders",
            "Orders that have not ended, and those confirmed",
            ("authority", "state"),
            registry=registry,
        )
        self._oldest = Gauge(
            "rakkan_ca_oldest_order_seconds", "Age of the oldest order that waits for the CA", ca, registry=registry
        )
        self._revocations = Gauge(
            "rakkan_ca_revocations_waiting", "Revocations the CA has not done", ca, registry=registry
        )
        self._expiring = Gauge(
            "rakkan_ca_certificates_expiring",
            "Certificates in use that end within so many days",
            ("authority", "days"),
            registry=registry,
        )
        self._breaker = Gauge("rakkan_ca_breaker", "0 closed, 1 half-open, 2 open", ca, registry=registry)
        self._status_age = Gauge(
            "rakkan_ca_status_age_seconds", "Age of the oldest status of a certificate in use", ca, registry=registry
        )
        self._status_age_max = Gauge(
            "rakkan_ca_status_age_max_seconds", "Age from which a status is no status (registry)", ca, registry=registry
        )

    @contextmanager
    def asking(self, authority: str, step: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds.labels(authority, step).observe(time.monotonic() - began)

    def failed(self, authority: str, kind: str) -> None:
        self._failures.labels(authority, kind).inc()

    def breaker(self, authority: str, state: BreakerState) -> None:
        self._breaker.labels(authority).set(_BREAKER[state])

    def status_age_max(self, authority: str, seconds: float) -> None:
        self._status_age_max.labels(authority).set(seconds)

    def standing(
        self,
        authority: str,
        *,
        orders: Mapping[str, int],
        oldest_s: float,
        revocations: int,
        expiring: Mapping[int, int],
        status_age_s: float,
    ) -> None:
        """How things stand in the database; the same from every process."""
        for state, number in orders.items():
            self._orders.labels(authority, state.lower()).set(number)
        self._oldest.labels(authority).set(oldest_s)
        self._revocations.labels(authority).set(revocations)
        for days, number in expiring.items():
            self._expiring.labels(authority, str(days)).set(number)
        self._status_age.labels(authority).set(status_age_s)
