"""Figures for Prometheus, in a registry of their own."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from glauber.server.lab import Lab


class Metrics:
    """Requests are counted here; queues are looked at when somebody asks."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("glauber_requests", "Requests answered", labels, registry=self.registry)
        self._seconds = Histogram("glauber_request_seconds", "Duration of requests", ("route",), registry=self.registry)
        self._streams = 0
        self.registry.register(self)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; the route is a template, so that labels stay few."""
        known = method if method in ("GET", "HEAD", "POST", "DELETE") else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def stream(self, change: int) -> None:
        """A stream of events begins (1) or ends (-1)."""
        self._streams += change

    def collect(self) -> Iterator[Metric]:
        """What prometheus-client asks a collector."""
        queued = GaugeMetricFamily("glauber_jobs_queued", "Jobs that wait", labels=("device",))
        running = GaugeMetricFamily("glauber_jobs_running", "Jobs that run", labels=("device",))
        up = GaugeMetricFamily("glauber_device_up", "1 while the device takes jobs", labels=("device",))
        for name, found in self._lab.devices.items():
            queued.add_metric((name,), len(found.device.queued))
            running.add_metric((name,), found.device.running is not None)
            up.add_metric((name,), found.device.trouble is None)
        yield from (queued, running, up)
        yield GaugeMetricFamily("glauber_event_streams", "Open streams of events", value=self._streams)

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
