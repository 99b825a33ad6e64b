"""Advice on what to add to a memory: which things search will fail for, how sure that is, and which pairs gain most.

::

    list ──► things ──► asked in an index of pictures ──► chances that search fails ──► advice, page
    (things)            (index)                           (forecast)                    (advice, page)

Nothing is written to the memory, and no label of a query is needed.
"""

from .advice import LookAlike, MemoryAdvice, ThingAdvice, advise, advise_listed
from .forecast import Forecast
from .things import Listed, WantedList, WantedThing, read_things

__all__ = [
    "Forecast",
    "Listed",
    "LookAlike",
    "MemoryAdvice",
    "ThingAdvice",
    "WantedList",
    "WantedThing",
    "advise",
    "advise_listed",
    "read_things",
]
