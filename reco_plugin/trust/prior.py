"""The gates of a memory that is too small to fit any: safe, not bold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..types import Modality
from .gate import Gate

PRIOR: Mapping[Modality, Gate] = {
    "image": Gate(
        np.array([-2.36, -0.57, -0.56, 0.0, 0.71, 0.04]),
        np.array([1.0, -1.2, -1.2, -0.05, -3.79, 0.16]),
        np.array([1.0, 1.58, 2.46, 0.0, -1.0, 1.64]),
        1.46,
        1.14,
    ),
    "text": Gate(
        np.array([-1.09, -0.2, 0.0, -0.07, 0.44, 0.09]),
        np.array([1.0, -1.2, -0.02, -0.06, -2.58, 0.03]),
        np.array([1.0, 1.9, 2.7, 0.0, 0.0, 2.29]),
        1.22,
        1.11,
    ),
}
"""Median of twelve fits on halves of ImageNet and on Pets (CLIP ViT-B/32), tried on other halves."""
