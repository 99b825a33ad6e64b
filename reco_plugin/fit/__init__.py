"""Fit a model to a catalogue, and say whether that helps.

::

    config      what to do; kept in the run's folder
    catalogue   read -> encode into a cache -> group
    split       groups -> which are used -> fit | validation | test; within the last two, pairs that ask
    questions   a split's queries, the index they search, and the memories with and without what they ask for
    candidates  ways to refine: frozen never moves, training-free, mean, reco, paper, and what anyone could write
    choose      ranks of a way on questions; validation -> policy; the test part, measured once
    findings    everything that was measured, for ``reco_plugin.report``, and the decision in sentences
    run         all of it; writes the run's folder: model, report and numbers
"""

from .config import FitConfig
from .result import FitResult
from .run import begin, follow, run_fit

__all__ = ["FitConfig", "FitResult", "begin", "follow", "run_fit"]
