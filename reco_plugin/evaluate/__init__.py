"""Measure what refinement changes: zero-shot classification, retrieval and entities, frozen against refined.

::

    vectors or images -> frozen vectors -> refined vectors -> ranks of the true candidates -> a table
"""

from .blocks import Blocks, Ranking, rank_blocks
from .entities import entities
from .entity_result import EntityResult
from .generalised import Generalised
from .metrics import (
    Interval,
    bootstrap,
    bootstrap_harmonic,
    bootstrap_seeds,
    harmonic_mean,
    ndcg,
    ranks,
    recall,
    retrieval_recall,
    top_k,
)
from .retrieval import RetrievalResult, retrieval
from .zero_shot import zero_shot
from .zero_shot_result import ZeroShotResult

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
