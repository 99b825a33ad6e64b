"""``/metrics`` for Prometheus: the library's :class:`~reco_plugin.counters.Counters` and the service's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client import Histogram as PrometheusHistogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from ..counters import SECONDS
from ..errors import MemoryStoreError
from .edge import Edge
from .routes import answering_in, openai_shape

_HELP = {
    "encode_s": "seconds per call of the encoder",
    "retrieve_s": "seconds per search of the memory, answered or not",
    "fuse_s": "seconds per fusion, answered or not",
    "moved": "cosine distance between frozen and refined vector",
    "refined": "calls of which some vector moved",
    "left_plain": "calls that were to be refined and of which no vector moved",
    "degraded": "calls answered with frozen vectors because something failed",
    "failed": "calls that raised because something failed",
}
_LABELS = {
    "encode_s": "modality",
    "refined": "modality",
    "left_plain": "modality",
    "degraded": "reason",
    "failed": "reason",
}


class Metrics:
    """The registry of one service, separate from others in the process."""

    def __init__(self, edge: Edge) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._edge = edge
        self.requests = Counter(
            "reco_http_requests", "requests by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = PrometheusHistogram(
            "reco_http_request_seconds", "seconds per request", ["route"], buckets=SECONDS, registry=self.registry
        )
        for process in (ProcessCollector, PlatformCollector, GCCollector):
            process(registry=self.registry)
        self.registry.register(self)

    def shown(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Read the counters; a Prometheus collector's method."""
        for name, value in self._edge.embedder.reco.counters.to_dict().items():
            yield _family(name, value)
        queue_s = self._edge.lanes.queue_s.to_dict()
        yield _histogram("reco_queue_seconds", "seconds that requests waited", queue_s)
        for queue, lanes in (("embed", self._edge.lanes), ("memory", self._edge.writing)):
            yield GaugeMetricFamily(f"reco_pending_{queue}", "requests that wait or are computed", lanes.pending)
        yield GaugeMetricFamily("reco_pending_bytes", "memory that bodies of requests take", self._edge.budget.taken)
        circuits = GaugeMetricFamily("reco_circuit_open", "1 while memory or fusion is not asked", labels=["part"])
        for part, circuit in self._edge.embedder.reco.circuits.items():
            circuits.add_metric([part], float(circuit.state != "closed"))
        yield circuits
        yield from self._api()
        memory = self._edge.embedder.reco.memory
        with suppress(MemoryStoreError):  # one of another encoder, reached only now
            learning, unfinished = float(memory.learner.learning), float(bool(memory.learner.unfinished))
            yield GaugeMetricFamily("reco_learning", "1 while this process learns calibration from the pairs", learning)
            said = "1 where a process began to learn calibration and has not ended, or died: none is begun until it has"
            yield GaugeMetricFamily("reco_learning_unfinished", said, unfinished)
        yield from self._arms()
        seen = self._edge.embedder.cache.seen
        yield CounterMetricFamily("reco_cache_hits", "items that the cache answered", seen.hits)
        yield CounterMetricFamily("reco_cache_misses", "items that the cache did not know", seen.misses)
        yield GaugeMetricFamily("reco_cache_entries", "items in the cache", seen.entries)

    def _api(self) -> Iterator[Metric]:
        """What was asked of an encoder that is an API, which has its price."""
        encoder = self._edge.embedder.reco.encoder
        said = "1 where the encoder is an API that has another model than the memory"
        yield GaugeMetricFamily("reco_encoder_changed", said, float(encoder.changed is not None))
        if encoder.client is None:
            return
        provider, counted = encoder.client.address.host, encoder.client.counted
        for name, tally, label, text in (
            ("calls", counted.calls, "outcome", "requests to the API that encodes, by their end"),
            ("items", counted.items, "modality", "texts and images that the API encoded"),
            ("tokens", counted.tokens, "kind", "what the API counted, by its name for it"),
        ):
            family = CounterMetricFamily(f"reco_encoder_api_{name}", text, labels=["provider", label])
            for word, count in tally.to_dict().items():
                family.add_metric([provider, word], count)
            yield family

    def _arms(self) -> Iterator[Metric]:
        """What each arm got, while refinement is switched on by degrees."""
        share = self._edge.settings.refined_share
        yield GaugeMetricFamily("reco_refined_share", "share of the queries that are refined, as it is set", share)
        queries = CounterMetricFamily(
            "reco_arm_queries", "queries by their arm, and what they got", labels=["arm", "answer"]
        )
        seconds = HistogramMetricFamily("reco_arm_seconds", "seconds per request, by its arm", labels=["arm"])
        for arm, counts in self._edge.arms.items():
            for answer, count in counts.answers.to_dict().items():
                queries.add_metric([arm, answer], count)
            taken = counts.seconds.to_dict()
            seconds.add_metric([arm], _buckets(taken), taken["sum"])
        yield queries
        yield seconds


def router(metrics: Metrics) -> APIRouter:
    """``GET /metrics``."""
    routes = APIRouter(route_class=answering_in(openai_shape), tags=["operations"])

    @routes.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def show_metrics() -> Response:
        """Prometheus metrics: seconds of encoding, retrieval, fusion and queue, degraded calls, distances moved."""
        return Response(metrics.shown(), media_type=CONTENT_TYPE_LATEST)

    return routes


def _family(name: str, value: Mapping[str, Any]) -> Metric:
    """One attribute of the counters, named as in docs/deployment.md."""
    label, text = _LABELS.get(name), _HELP.get(name, name)
    full = "reco_" + (f"{name.removesuffix('_s')}_seconds" if name.endswith("_s") else name)
    if "buckets" in value:
        return _histogram(full, text, value)
    if all(isinstance(part, Mapping) for part in value.values()) and value:
        family = HistogramMetricFamily(full, text, labels=[label or "part"])
        for part, counts in value.items():
            family.add_metric([part], _buckets(counts), counts["sum"])
        return family
    counter = CounterMetricFamily(full, text, labels=[label or "part"])
    for word, count in value.items():
        counter.add_metric([word], count)
    return counter


def _histogram(name: str, text: str, counts: Mapping[str, Any]) -> Metric:
    return HistogramMetricFamily(name, text, buckets=_buckets(counts), sum_value=counts["sum"])


def _buckets(counts: Mapping[str, Any]) -> list[Any]:
    return [*([str(bound), count] for bound, count in counts["buckets"]), ["+Inf", counts["count"]]]
