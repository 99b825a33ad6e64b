"""Metrics of several processes as those of one service."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
_COUNTS = ("counter", "histogram", "summary")
_ADDED = (
    "reco_pending_",
    "reco_cache_entries",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_open_fds",
)
"""Gauges of which all together is meant; of others, the largest."""
_EARLIEST = ("_created", "process_start_time_seconds")


def add_up(parts: Iterable[Sequence[Metric]]) -> list[Metric]:
    """One family of each name: counts and sizes added, of states the largest, of times the first.

    >>> from prometheus_client.metrics_core import CounterMetricFamily as Counter, GaugeMetricFamily as Gauge
    >>> one, other = [Counter("calls", "", 2), Gauge("open", "", 0)], [Counter("calls", "", 3), Gauge("open", "", 1)]
    >>> [(sample.name, sample.value) for family in add_up([one, other]) for sample in family.samples]
    [('calls_total', 5), ('open', 1)]
    """
    families: dict[str, Metric] = {}
    values: dict[str, dict[_Key, float]] = {}
    for family in (family for part in parts for family in part):
        families.setdefault(family.name, family)
        known = values.setdefault(family.name, {})
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            known[key] = sample.value if key not in known else _together(family, sample, known[key])
    return [_made(families[name], known) for name, known in values.items()]


def counted(families: Iterable[Metric]) -> list[Metric]:
    """Those that go on where their process has ended."""
    return [family for family in families if family.type in _COUNTS]


def _together(family: Metric, sample: Sample, before: float) -> float:
    if sample.name.endswith(_EARLIEST):
        return min(before, sample.value)
    if family.type in _COUNTS or family.name.startswith(_ADDED):
        return before + sample.value
    return max(before, sample.value)


def _made(like: Metric, values: dict[_Key, float]) -> Metric:
    made = Metric(like.name, like.documentation, like.type, like.unit)
    for (name, labels), value in values.items():
        made.add_sample(name, dict(labels), value)
    return made
