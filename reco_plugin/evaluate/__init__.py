"""Measure what refinement changes: zero-shot classification and retrieval, frozen against refined.

::

    a set -> Task of frozen vectors -> the same refined -> Measured: ranks of the true candidates -> lines -> a table
             (task, prompts)           (encoding, methods) (measure, ranking)                        (measure, results)

:mod:`reco_plugin.fit` and the quickstart's benchmark measure with the same functions.
"""

from ..measure.statistics import Interval, bootstrap, bootstrap_harmonic, harmonic_mean
from .measure import Generalised
from .ranking import Blocks, Ranking, ndcg, rank_blocks, ranks, recall, top_k
from .results import RetrievalResult, ZeroShotResult
from .retrieval import retrieval
from .zero_shot import zero_shot

__all__ = [
    "Blocks",
    "Generalised",
    "Interval",
    "Ranking",
    "RetrievalResult",
    "ZeroShotResult",
    "bootstrap",
    "bootstrap_harmonic",
    "harmonic_mean",
    "ndcg",
    "rank_blocks",
    "ranks",
    "recall",
    "retrieval",
    "top_k",
    "zero_shot",
]
