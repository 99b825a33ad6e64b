"""Measure whether refinement helps, on pictures with known answers and in an existing index.

::

    evaluate  pictures with classes or captions, plain and refined      tune     a policy, chosen and tested
    compare   real queries in an index: plain, refined, text, both      verdict  the decisions
    record    all results ──► table, report                             hybrid   the engine's own hybrid query
"""

from .compare import CompareOptions, compare
from .function import FunctionIndex, load_function
from .judgments import Judgments, read_judgments
from .queries import QueryLog, SearchQuery, read_queries
from .record import Record
from .search import SearchOptions

__all__ = [
    "CompareOptions",
    "FunctionIndex",
    "Judgments",
    "QueryLog",
    "Record",
    "SearchOptions",
    "SearchQuery",
    "compare",
    "load_function",
    "read_judgments",
    "read_queries",
]
