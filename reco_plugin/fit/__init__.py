"""Fit a model to a catalogue, and measure whether that helps.

::

    config      what to do; kept in the run's folder
    catalogue   read -> encode into a cache -> group
    split       groups -> a sample -> fit | validation | test; within the last two, pairs that query
    questions   a split's queries, the index they search, and the memories with and without answers
    candidates  methods to choose from: reco (the closed form), mean, paper; and simple baselines
    choose      ranks of a candidate on questions; validation -> policy; the test part, measured once
    findings    all measurements, for ``reco_plugin.report``, and the decision in sentences
    run         all of it; writes the run's folder: model, report and numbers
"""

from .config import FitConfig, FitResult
from .run import run_fit

__all__ = ["FitConfig", "FitResult", "run_fit"]
