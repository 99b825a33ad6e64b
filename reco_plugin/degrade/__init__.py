"""When the memory or the fusion is down or late: frozen vectors with a reason, or an error, never a hang.

::

    Degrading --> Refiner --> GuardedSearches --Guard--> breaker --> deadline --> the memory
                         `--> GuardedFuser ----Guard--> breaker ---------------> the fusion
"""

from .breaker import Breaker, Circuit
from .degrading import DegradedWarning, Degrading, open_or_await

__all__ = ["Breaker", "Circuit", "DegradedWarning", "Degrading", "open_or_await"]
