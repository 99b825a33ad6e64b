"""Measure what refinement changes: zero-shot classification, retrieval and entities, frozen against refined.

::

    a set -> Task of frozen vectors -> the same refined -> Measured: ranks of the true candidates -> lines -> a table
             (task, prompts)           (encoding, methods) (measure, ranking)                        (measure, results)

:mod:`.study`, :mod:`reco_plugin.fit` and the quickstart's benchmark measure with the same functions.
"""

from .entities import entities
from .intervals import Interval, bootstrap, bootstrap_harmonic, bootstrap_seeds, harmonic_mean
from .measure import Generalised
from .metrics import ndcg, recall, retrieval_recall, top_k
from .ranking import Blocks, Ranking, rank_blocks, ranks
from .results import EntityResult, RetrievalResult, ZeroShotResult
from .retrieval import retrieval
from .zero_shot import zero_shot

__all__ = [
    "Blocks",
    "EntityResult",
    "Generalised",
    "Interval",
    "Ranking",
    "RetrievalResult",
    "ZeroShotResult",
    "bootstrap",
    "bootstrap_harmonic",
    "bootstrap_seeds",
    "entities",
    "harmonic_mean",
    "ndcg",
    "rank_blocks",
    "ranks",
    "recall",
    "retrieval",
    "retrieval_recall",
    "top_k",
    "zero_shot",
]
