"""Calibration of a memory, learned from its own pairs: how far a query moves towards what the memory holds.

``moments``      mean and covariance of each modality: what is found enters whitened, in standard deviations
``reliability``  per pair: how well its caption fits its image, by the pairs around it
``signals``      per query: the whitened evidence of its neighbours, and eight numbers about it
``gate``         signals -> the strength s
``formula``      s -> the move, in scores and in vectors
``episodes``     pairs of the memory that ask, hidden from themselves, siblings visible and hidden
``rivals``       whom each of them is compared with
``fit``          the gate that serves these episodes best, without labels
``presence``     whether the memory holds a query's answer, from 0 to 1
``feedback``     what people said is wrong: it holds the evidence back near the queries that it was said of
``state``        all of this as one blob that is stored with the memory
``coverage``     which prompts of a set the memory knows
``scores``       exact scores of images and texts, both refined, and candidates as single vectors
``check``        what refinement does to the memory's own pairs
"""

from .check import Check, SideCheck
from .state import Calibration

__all__ = ["Calibration", "Check", "SideCheck"]
