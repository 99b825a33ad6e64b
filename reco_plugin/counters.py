"""Counters of a Reco: metrics of Prometheus, in a registry of their own."""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from .types import MODALITIES, Degraded

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, from half a millisecond to ten seconds."""
DISTANCES = (1e-6, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
"""Upper bounds of cosine distances; the first one counts vectors that did not move."""


class Counters:
    """All counters of a Reco, by the names and labels of ``docs/run.md``; safe to use from several threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        """Register it with another one to export it: it is a collector, too."""
        self.encode_s = self._histogram("encode_seconds", "seconds per call of the encoder", SECONDS, "modality")
        self.retrieve_s = self._histogram("retrieve_seconds", "seconds per search of the memory, answered or not")
        self.fuse_s = self._histogram("fuse_seconds", "seconds per fusion, answered or not")
        self.moved = self._histogram("moved", "cosine distance between frozen and refined vector", DISTANCES)
        self.refined = self._counter("refined", "calls of which some vector moved", "modality")
        self.left_plain = self._counter(
            "left_plain", "calls that were to be refined and of which no vector moved", "modality"
        )
        self.degraded = self._counter(
            "degraded", "calls answered with frozen vectors because something failed", "reason"
        )
        self.failed = self._counter("failed", "calls that raised because something failed", "reason")

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...] = SECONDS, *labels: str) -> Histogram:
        return Histogram(f"reco_{name}", text, labels, buckets=bounds, registry=self.registry)

    def _counter(self, name: str, text: str, label: str) -> Counter:
        counter = Counter(f"reco_{name}", text, [label], registry=self.registry)
        for word in MODALITIES if label == "modality" else get_args(Degraded):
            counter.labels(word)  # begins at 0: what is first seen at 1 has no rate in Prometheus
        return counter

    def to_dict(self) -> dict[str, float]:
        """Value of each sample, by its name and labels as Prometheus writes them.

        >>> counters = Counters()
        >>> counters.refined.labels("text").inc()
        >>> counters.to_dict()['reco_refined_total{modality="text"}']
        1.0
        """
        found = dict[str, float]()
        for sample in (sample for family in self.registry.collect() for sample in family.samples):
            if not sample.name.endswith("_created"):
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found
