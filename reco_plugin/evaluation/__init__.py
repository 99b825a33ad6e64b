"""Does it help? Measured on pictures with known answers, and in an index that exists; one record, one decision a kind.

::

    evaluate  pictures with classes or captions, plain and refined      tune     a policy, chosen and tested
    compare   real queries in an index: plain, refined, text, both      verdict  the decisions
    record    all that was measured ──► table, page                     hybrid   the engine's own query of both
"""

from .compare import CompareOptions, compare, compare_runs
from .function import FunctionIndex, load_function
from .judgments import Judgments, read_judgments
from .queries import QueryLog, SearchQuery, read_queries
from .record import Record
from .search import SearchHow

__all__ = [
    "CompareOptions",
    "FunctionIndex",
    "Judgments",
    "QueryLog",
    "Record",
    "SearchHow",
    "SearchQuery",
    "compare",
    "compare_runs",
    "load_function",
    "read_judgments",
    "read_queries",
]
