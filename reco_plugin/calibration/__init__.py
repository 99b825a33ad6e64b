"""Calibration of a memory, learned from its own pairs: how far a query moves towards what the memory holds.

``moments``      mean and covariance of each modality: what is found enters whitened, in standard deviations
``metric``       of images: how those of one caption differ, for each pair that asks measured on other captions
``reliability``  per neighbour of a query: how far it agrees with the others that were found
``evidence``     per query: the whitened evidence of its neighbours, four features of it, and the formula of the move
``episodes``     pairs of the memory that ask, hidden from themselves, siblings visible and hidden
``fit``          the gate that serves these episodes best, without labels
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
