"""``/metrics`` for Prometheus: the library's :class:`~reco_plugin.counters.Counters` and the service's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric

from .. import __version__
from ..counters import SECONDS
from ..errors import RecoError
from .app_state import AppState
from .health import Health
from .routing import openai_shape, route_class


class Metrics:
    """The registry of one service, separate from others in the process."""

    def __init__(self, state: AppState, health: Health) -> None:
        self._state, self._health = state, health
        self._registry = registry = CollectorRegistry(auto_describe=False)
        buckets = sorted({*SECONDS, state.settings.deadline_s})
        self._requests = Counter(
            "reco_http_requests", "requests by route and status", ["route", "status"], registry=registry
        )
        self._refusals = Counter(
            "reco_http_refusals", "requests that were refused or failed, by code", ["code"], registry=registry
        )
        self._seconds = Histogram(
            "reco_http_request_duration_seconds", "seconds per request", ["route"], buckets=buckets, registry=registry
        )
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        for source in (state.embedder.reco.counters.registry, state.executor.queue_s, self):
            registry.register(source)
        self.connections: Callable[[], int] = int
        """Returns the number of open connections; the server sets it."""

    def count(self, route: str, status: int, seconds: float, code: str) -> None:
        """Count a request by the template of its path, so that there are few labels."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if code:
            self._refusals.labels(code).inc()

    def write(self) -> bytes:
        """Write all metrics in Prometheus' format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the state of the service; a method of Prometheus collectors."""
        state, reco = self._state, self._state.embedder.reco
        yield InfoMetricFamily("reco_build", "version of this service", {"version": __version__})
        for name, about, value in (
            ("queue_inputs", "texts, images and vectors that wait or are computed", state.executor.inputs),
            ("queue_limit_inputs", "limit of the inputs that wait", state.settings.queue),
            ("writes_pending", "changes of the memory that wait or run", state.writer.pending),
            ("pending_bytes", "memory that request bodies take", state.bytes.used),
            ("connections", "open connections", self.connections()),
            ("circuit_open", "1 while the memory is not searched after failures", reco.circuit.state != "closed"),
            ("ready", "1 while requests should be sent here", not self._health.ready().reasons),
        ):
            yield GaugeMetricFamily(f"reco_{name}", about, float(value))
        degraded = GaugeMetricFamily("reco_degraded", "1 for each part that is down", labels=["part"])
        for part, problem in self._health.problems().items():
            degraded.add_metric([part], float(bool(problem)))
        yield degraded
        yield from self._collect_memory()

    def _collect_memory(self) -> Iterator[Metric]:
        memory = self._state.embedder.reco.memory
        yield GaugeMetricFamily(
            "reco_memory_last_write_timestamp_seconds",
            "when this service last changed the memory; 0: never",
            self._state.last_write,
        )
        yield GaugeMetricFamily("reco_memory_version", "changes with each write of this service", memory.version)
        with suppress(RecoError):  # of another encoder, or down
            yield GaugeMetricFamily("reco_memory_pairs", "pairs in the memory", len(memory))
            learns = float(memory.learner.learning)
            yield GaugeMetricFamily("reco_learning", "1 while this process learns from the pairs", learns)
        if self._state.live_version.is_folder:
            with suppress(OSError):
                free = shutil.disk_usage(os.path.realpath(memory.location)).free
                yield GaugeMetricFamily("reco_memory_disk_free_bytes", "free bytes on the disk of the memory", free)


def router(metrics: Metrics) -> APIRouter:
    """Make ``GET /metrics``."""
    routes = APIRouter(route_class=route_class(openai_shape), tags=["operations"])

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def show_metrics() -> Response:
        """Show Prometheus metrics: seconds of each step and of the queue, degraded calls, and how far vectors moved."""
        return Response(metrics.write(), media_type=CONTENT_TYPE_LATEST)

    return routes
