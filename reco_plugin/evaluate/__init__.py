"""Measure what refinement changes: zero-shot classification and image-text retrieval, frozen against refined.

::

    vectors or images -> frozen vectors -> refined vectors -> ranks of the true candidates -> a table
"""

from .metrics import Interval, bootstrap, ranks, retrieval_recall, top_k
from .retrieval import RetrievalResult, retrieval
from .zero_shot import ZeroShotResult, zero_shot

__all__ = [
    "Interval",
    "RetrievalResult",
    "ZeroShotResult",
    "bootstrap",
    "ranks",
    "retrieval",
    "retrieval_recall",
    "top_k",
    "zero_shot",
]
