"""Calibration of a memory, learned from its own pairs: how far a query moves towards what the memory holds.

``moments``      mean and covariance of each modality
``plda``         the model of the images: which share a caption
``corpus``       the pairs as the fit sees them
``fit``          the gates that serve held-out pairs best, without labels
``evidence``     per query: what its neighbours say, in nats, and how far it moves
``state``        all of this as one blob, stored with the memory; the factors that shorten a move
``closed_form``  the fuser that moves queries and candidates by it
``coverage``     which prompts of a set the memory knows
``scores``       exact scores of images and texts, both refined, and candidates as single vectors
``why``          what decided, in figures and words
``extra``        what extras may add: they learn with it, and leave factors
``learner``      when a memory learns, at once or in a thread
"""

from .state import Calibration

__all__ = ["Calibration"]
