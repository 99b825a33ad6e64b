"""When the memory or the fusion is down or late: frozen vectors with a reason, or an error, never a hang.

::

    Degrading --> Refiner --> BatchedSearches --> GuardedSearches --Guard--> breaker --> deadline --> the memory
                         `--> BatchedFuser -----> GuardedFuser ----Guard--> breaker ---------------> the fusion

The batches are of callers in several threads, where memory and fusion are in this process.
"""

from .breaker import Breaker, Circuit
from .degrading import DegradedWarning, Degrading, open_or_await

__all__ = ["Breaker", "Circuit", "DegradedWarning", "Degrading", "open_or_await"]
