"""The figures that only this room knows, for each TSA. Labels are the registry's names."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.tsa_connector.asking import Attempt
from services.tsa_connector.memory import Memory, State
from shared.registry import TimeStampingAuthority

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class TSAMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        of = ("authority",)
        self._asked = Counter(
            "rakkan_tsa_requests", "Questions put to a TSA", ("authority", "outcome"), registry=registry
        )
        self._seconds = Histogram(
            "rakkan_tsa_seconds", "From a question to its token", of, registry=registry, buckets=_SECONDS
        )
        self._offset = Gauge("rakkan_tsa_offset_seconds", "Its clock against ours, last token", of, registry=registry)
        self._certificate = Gauge(
            "rakkan_tsa_certificate_not_after_seconds", "When its certificate ends", of, registry=registry
        )
        self._breaker = Gauge(
            "rakkan_tsa_breaker_open",
            "1 while it is set aside for faults of this kind",
            ("authority", "kind"),
            registry=registry,
        )
        self._left = Gauge(
            "rakkan_tsa_quota_left_ratio", "Of a quota, all replicas", ("authority", "seconds"), registry=registry
        )
        self._own_offset = Gauge(
            "rakkan_tsa_own_clock_off_seconds", "How far most TSAs say that we are off; 0: not", registry=registry
        )
        self._readers = Gauge("rakkan_tsa_reader_restarts", "Readers that had to be replaced", registry=registry)

    def asked(self, attempt: Attempt) -> None:
        self._asked.labels(attempt.authority, attempt.code or "token").inc()
        if attempt.reading is not None:
            self._seconds.labels(attempt.authority).observe(attempt.latency_s)

    def stands(self, name: str, memory: Memory, state: State) -> None:
        """How a TSA stands now."""
        if memory.offset_s is not None:
            self._offset.labels(name).set(memory.offset_s)
        if memory.certificate_until is not None:
            self._certificate.labels(name).set(memory.certificate_until.timestamp())
        for kind, breaker in (("transport", memory.transport), ("verification", memory.verification)):
            self._breaker.labels(name, kind).set(int(breaker.open_until is not None and state is not State.WORKING))

    def left(self, tsas: Mapping[str, TimeStampingAuthority], left: Mapping[str, tuple[int, ...]]) -> None:
        for name, of_it in left.items():
            for quota, count in zip(tsas[name].quotas, of_it, strict=True):
                self._left.labels(name, str(quota.seconds)).set(count / quota.requests)

    def own_clock(self, offset_s: float | None) -> None:
        self._own_offset.set(offset_s or 0.0)

    def readers(self, restarts: int) -> None:
        self._readers.set(restarts)

    def forget(self, name: str) -> None:
        """A TSA that left the registry raises no alert any more."""
        for gauge in (self._offset, self._certificate):
            gauge.remove_by_labels({"authority": name})
        for gauge in (self._breaker, self._left):
            gauge.remove_by_labels({"authority": name})
