"""``/metrics`` for Prometheus: the library's :class:`~reco_plugin.counters.Counters` and the service's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric

from .. import __version__
from ..counters import SECONDS
from ..errors import RecoError
from .app_state import Edge
from .routing import answering_in, openai_shape

if TYPE_CHECKING:
    from .health import Health


class Metrics:
    """The registry of one service, separate from others in the process."""

    def __init__(self, edge: Edge, health: Health) -> None:
        self._edge, self._health = edge, health
        self._registry = CollectorRegistry(auto_describe=False)
        bounds = sorted({*SECONDS, edge.settings.deadline_s})
        self._requests = Counter(
            "reco_http_requests", "requests by route and status", ["route", "status"], registry=self._registry
        )
        self._refusals = Counter(
            "reco_http_refusals", "requests that were refused or failed, by code", ["code"], registry=self._registry
        )
        self._seconds = Histogram(
            "reco_http_request_duration_seconds", "seconds per request", ["route"], buckets=bounds,
            registry=self._registry,
        )  # fmt: skip
        for process in (ProcessCollector, PlatformCollector, GCCollector):
            process(registry=self._registry)
        for collector in (edge.embedder.reco.counters.registry, edge.lanes.queue_s, self):
            self._registry.register(collector)
        self.connections: Callable[[], int] = int
        """How many are open; the server's."""

    def count(self, route: str, status: int, seconds: float, code: str) -> None:
        """Count a request by the template of its path, so that there are few labels."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if code:
            self._refusals.labels(code).inc()

    def shown(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Read the state of the service; a Prometheus collector's method."""
        edge = self._edge
        yield InfoMetricFamily("reco_build", "the version of this service", {"version": __version__})
        yield GaugeMetricFamily("reco_queue_inputs", "texts, images and vectors that wait or run", edge.lanes.inputs)
        yield GaugeMetricFamily("reco_queue_limit_inputs", "how many may wait", edge.settings.queue)
        yield GaugeMetricFamily("reco_writes_pending", "changes of the memory that wait or run", edge.writing.pending)
        yield GaugeMetricFamily("reco_pending_bytes", "memory that bodies of requests take", edge.budget.taken)
        yield GaugeMetricFamily("reco_connections", "open connections", self.connections())
        closed = edge.embedder.reco.circuit.state == "closed"
        yield GaugeMetricFamily("reco_circuit_open", "1 while the memory is not called", float(not closed))
        yield from self._state()
        yield from self._memory()

    def _state(self) -> Iterator[Metric]:
        """Whether it is ready, and each reason of "degraded"."""
        ready = self._health.ready()
        yield GaugeMetricFamily("reco_ready", "1 while requests should be sent here", float(not ready.reasons))
        degraded = GaugeMetricFamily("reco_degraded", "1 for each part that is down", labels=["part"])
        for part, down in self._health.parts().items():
            degraded.add_metric([part], float(down))
        yield degraded

    def _memory(self) -> Iterator[Metric]:
        memory = self._edge.embedder.reco.memory
        yield GaugeMetricFamily(
            "reco_memory_last_write_timestamp_seconds", "when this service last wrote; 0: never", self._edge.last_write
        )
        yield GaugeMetricFamily("reco_memory_version", "changes with each write of this service", memory.version)
        with suppress(RecoError):  # one of another encoder, or away
            yield GaugeMetricFamily("reco_memory_pairs", "pairs in the memory", len(memory))
            learns = float(memory.learner.learning)
            yield GaugeMetricFamily("reco_learning", "1 while this process learns from the pairs", learns)
        if self._edge.in_use.in_folder:
            with suppress(OSError):
                free = shutil.disk_usage(os.path.realpath(memory.location)).free
                yield GaugeMetricFamily("reco_memory_disk_free_bytes", "free where the memory's folder is", free)


def router(metrics: Metrics) -> APIRouter:
    """``GET /metrics``."""
    routes = APIRouter(route_class=answering_in(openai_shape), tags=["operations"])

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def show_metrics() -> Response:
        """Prometheus metrics: seconds of encoding, retrieval, fusion and queue, degraded calls, distances moved."""
        return Response(metrics.shown(), media_type=CONTENT_TYPE_LATEST)

    return routes
