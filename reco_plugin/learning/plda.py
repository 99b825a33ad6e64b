"""A memory's images by caption as a probabilistic model, PLDA (Ioffe, 2006; Prince and Elder, 2007).

An image is ``v = m + y + e``: y, of covariance B, belongs to its caption, and e, of covariance W, to the picture; both
are Gaussian. In the axes where W is 1 and B is diagonal, it has a closed form how likely an image belongs to a caption
of which n pictures are known: n decides how far they are believed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..types import Vectors
from ..vectors import Floats, multiply
from .nearest import NearestRows, RowNumbers

WITHIN = 0.5
"""Share of all variance that pictures of one caption are assumed to have, before they were looked at."""
ROUND = 0.7
"""Share of that which is the same in all directions."""
_LEAST = 0.05  # of B relative to W: axes below tell nothing
_FEWEST = 0.3  # trusted others of a caption that a picture is compared with
_BLOCK = 1_000
_TINY = 1e-9


@dataclass(frozen=True)
class Plda:
    """The model of a memory's images.

    Attributes:
        mean: (D,) of all images.
        axes: (D, R) float16, in which pictures of one caption vary by 1.
        psi: (R,) how captions vary along them, the most first.
    """

    mean: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float16]
    psi: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_wide", self.axes.astype(np.float32))  # made once: a query applies it

    @property
    def wide(self) -> npt.NDArray[np.float32]:
        """The axes as float32."""
        wide: npt.NDArray[np.float32] = self._wide  # type: ignore[attr-defined]
        return wide

    def of(self, v: Vectors) -> Floats:
        """Images (.., D) along the axes, (.., R)."""
        return multiply((v - self.mean).reshape(-1, v.shape[-1]), self.wide).reshape(*v.shape[:-1], len(self.psi))

    def caption(self, mean: Floats, n: Floats) -> tuple[Floats, Floats, Floats]:
        """Direction (.., R), constant (..,) and curvature (.., R) of the log-likelihood ratio of a caption.

        An image x (.., R) has the ratio ``x @ direction - x**2 @ curvature / 2 + constant``: how much likelier it is
        under this caption than under a random one.

        Args:
            mean: (.., R) of its known pictures.
            n: (.., 1) how many they are, as far as they are trusted.
        """
        known = n * self.psi
        middle, variance = known / (known + 1) * mean, 1 + self.psi / (known + 1)
        constant = -0.5 * (middle * middle / variance + np.log(variance / (1 + self.psi))).sum(axis=-1)
        direction, curvature = middle / variance, 1 / variance - 1 / (1 + self.psi)
        return np.asarray(direction, np.float32), np.asarray(constant, np.float32), np.asarray(curvature, np.float32)

    def ratio(self, x: Floats, mean: Floats, n: Floats) -> Floats:
        """Log-likelihood ratio (..,) of images x (.., R); the rest as in :meth:`caption`."""
        direction, constant, curvature = self.caption(mean, n)
        return np.asarray((x * (direction - 0.5 * x * curvature)).sum(axis=-1) + constant, np.float32)


def measure_plda(image: Vectors, rows: RowNumbers, company: NearestRows, trust: Floats) -> Plda:
    """The model of some images, each of which is compared with the mean of its caption's others.

    W is shrunk towards a share of all variance, by as many pictures as there are dimensions.

    Args:
        image: (N, D) unit-norm.
        rows: (n,) of the images to measure.
        company: for each of the N, (N, K) rows of pairs with the same or a similar caption, and how similar, 0 to 1.
        trust: (N,) in each pair.
    """
    dimension, measured = image.shape[1], np.zeros(len(image), np.float32)
    measured[rows] = trust[rows]
    mean = image[rows].mean(axis=0)
    x, rest, n = image[rows] - mean, np.empty((len(rows), dimension), np.float32), np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK):
        some, there = slice(start, start + _BLOCK), company[0][rows[start : start + _BLOCK]]
        weight = company[1][rows[some]] * measured[there]
        n[some] = weight.sum(axis=1)
        held = np.matmul(weight[:, None], image[there] - mean)[:, 0]
        rest[some] = held / np.maximum(n[some], _TINY)[:, None]
    enough = measured[rows] * (n > _FEWEST)
    left = (x - rest) * np.sqrt(enough * n / (n + 1))[:, None]
    whole = _shrunk((x.T @ x).astype(np.float64) / len(rows), len(rows))
    expected = WITHIN * ((1 - ROUND) * whole + ROUND * np.trace(whole) / dimension * np.eye(dimension))
    within = (left.T @ left + dimension * expected) / (float(enough.sum()) + dimension)
    inverse = np.linalg.inv(np.linalg.cholesky(within))
    value, vector = np.linalg.eigh(inverse @ whole @ inverse.T)
    value, vector = value[::-1], vector[:, ::-1]
    keep = value - 1 > min(_LEAST, value[0] - 1 - _TINY)
    psi = np.maximum(value - 1, 1e-3)[keep].astype(np.float32)
    return Plda(mean, np.ascontiguousarray(inverse.T @ vector[:, keep]).astype(np.float16), psi)


def _shrunk(covariance: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.float64]:
    """Oracle-approximating shrinkage of a covariance (D, D) of n samples (Chen, Wiesel, Eldar and Hero, 2010)."""
    d, trace, square = len(covariance), float(np.trace(covariance)), float(np.square(covariance).sum())
    spread = (n + 1 - 2 / d) * max(square - trace * trace / d, _TINY)
    share = min(1.0, ((1 - 2 / d) * square + trace * trace) / spread)
    return np.asarray((1 - share) * covariance + share * trace / d * np.eye(d))
