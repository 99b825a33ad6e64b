"""Plain against refined queries in an index that exists: real queries, the engine's own search, a page, one sentence.

::

    queries ──► plain, refined ──► search in every way ──► judged, compared, timed ──► evidence ──► verdict, page
    (queries)   (Reco)             (search)                (measure)           (evidence)   (verdict, page)

The index is only read.
"""

from .function import FunctionIndex, load_function
from .judgments import Judgments, read_judgments, read_votes
from .marks import Marks, read_marks
from .queries import QueryLog, SearchQuery, read_queries
from .run import CompareOptions, Comparison, compare, compare_runs
from .search import SearchHow
from .verdict import Advice, SwitchRule

__all__ = [
    "Advice",
    "CompareOptions",
    "Comparison",
    "FunctionIndex",
    "Judgments",
    "Marks",
    "QueryLog",
    "SearchHow",
    "SearchQuery",
    "SwitchRule",
    "compare",
    "compare_runs",
    "load_function",
    "read_judgments",
    "read_marks",
    "read_queries",
    "read_votes",
]
