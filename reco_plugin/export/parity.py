"""Compares an exported graph with torch by two measures, each with a bound, on generated images and captions."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

from ..encoders.preprocess import TextConfig
from ..encoders.preprocess.text import TokenIds, needed_tokens
from ..errors import ArtifactError
from ..types import ImageInput, Vectors
from .export_options import Precision

NEAREST = 10
_TIE = 1e-6  # difference of cosines that are equal in float32
SAME = 1e-5
"""Largest difference by rounding of a value of a unit vector."""
_SHORTENED = 10  # texts that are compared at their own length
COUNT = 48
"""Number of samples, enough for the ten nearest to be meaningful."""
SAMPLE_TEXTS = (
    "a photo of a dog",
    "red fox in the snow",
    "2012 Hyundai Elantra Touring hatchback, front three-quarter view",
    "x",
    "",
    "Ein kleines Café in Zürich",
    "東京タワーの夜景",
    "part no. 8-97309-421-0, oil filter, box of 12",
    "emoji 🦊 and punctuation!?",
    "a long caption that goes on about the weather, the light, the people and the street until it is cut " * 4,
)
_FRAMES = ("a photo of a {}", "{}", "a close-up of an old {} on a wooden table, taken with a flash at night")
_OBJECTS = (
    *("teapot", "sports car", "lighthouse", "grey heron", "wool jumper", "bicycle", "circuit board", "pizza"),
    *("violin", "harbour", "orchid", "steam engine", "chess board"),
)


@dataclass(frozen=True)
class Bounds:
    """Smallest values at which a graph is exported."""

    cosine: float
    overlap: float


BOUNDS: dict[Precision, Bounds] = {
    "fp32": Bounds(1 - 1e-6, 0.99),
    "fp16": Bounds(0.9995, 0.95),
    "int8": Bounds(0.98, 0.75),
}


@dataclass(frozen=True)
class Parity:
    """How close one exported graph is to torch on the same inputs."""

    graph: str  # name
    inputs: int  # number of compared images, texts or queries
    least_cosine: float  # smallest cosine between the two vectors of an input
    overlap: float  # share of the ten nearest that both have, see :func:`overlap`
    largest_difference: float  # largest difference of an output value
    size_bytes: int  # size of the graph's files


def compare(graph: str, expected: Vectors, actual: Vectors, *, difference: float = 0.0, size_bytes: int = 0) -> Parity:
    """Compare the vectors (N, D) of a graph with torch's, for the same inputs.

    ``difference`` is the largest difference of the other outputs of the graph.
    """
    largest = max(float(np.abs(expected - actual).max()), difference)
    cosines = (_unit(expected) * _unit(actual)).sum(axis=1)
    return Parity(graph, len(actual), float(cosines.min()), overlap(expected, actual), largest, size_bytes)


def overlap(expected: Vectors, actual: Vectors, nearest: int = NEAREST) -> float:
    """Return the share of the nearest neighbours that stay the same, as a mean over N queries; vectors are (N, D).

    The index has torch's vectors, since nobody encodes an existing index again. Each vector is a query against the
    others, once torch's and once the graph's. Ties count as the same.

    >>> index = np.float32([[1, 0], [0.8, 0.6], [0, 1]])
    >>> overlap(index, index, nearest=1)
    1.0
    >>> overlap(index, np.float32([[1, 0], [0.8, 0.6], [1, 0]]), nearest=1)  # the last is nearest to the first
    0.6666666666666666
    """
    nearest = min(nearest, len(expected) - 1)
    if nearest < 1:
        return 1.0
    index = _unit(expected)
    true, seen = index @ index.T, _unit(actual) @ index.T  # (N, N)
    np.fill_diagonal(true, -np.inf)
    np.fill_diagonal(seen, -np.inf)
    least = np.sort(true, axis=1)[:, -nearest]  # the cosine of the last of the nearest
    chosen = np.argsort(-seen, axis=1, kind="stable")[:, :nearest]
    return float((np.take_along_axis(true, chosen, axis=1) >= least[:, None] - _TIE).mean())


def takes_short_texts(run: Callable[[TokenIds], Vectors], ids: TokenIds, text: TextConfig) -> bool:
    """Whether texts have the same vectors at their own length as in the whole context.

    Args:
        run: the text tower, (B, L) -> (B, D).
        ids: ids of samples, (N, L).
        text: preprocessing with ``dynamic``.
    """
    needed = needed_tokens(ids, text)
    for row in np.argsort(needed, kind="stable")[:: max(len(ids) // _SHORTENED, 1)]:
        whole = run(ids[row : row + 1])
        for length in {int(needed[row]), min(int(needed[row]) + 3, ids.shape[1])}:
            if np.abs(run(np.ascontiguousarray(ids[row : row + 1, :length])) - whole).max() > SAME:
                return False
    return bool(needed.min() < ids.shape[1])


def check(parity: Parity, precision: Precision, way_out: str = "export with a higher precision") -> None:
    """Check that a graph is within the bounds of its precision.

    Raises:
        ArtifactError: it is not; the message has both measures and both bounds.
    """
    bounds = BOUNDS[precision]
    if not (parity.least_cosine >= bounds.cosine and parity.overlap >= bounds.overlap):  # NaN fails too
        raise ArtifactError(
            f"{parity.graph} in {precision} differs from the original: least cosine {parity.least_cosine:.6f} "
            f"(allowed {bounds.cosine:.6f}), top-{NEAREST} overlap {parity.overlap:.3f} (allowed {bounds.overlap:.3f}) "
            f"over {parity.inputs} inputs. Nothing was written; {way_out}."
        )


def table(parities: list[Parity]) -> list[str]:
    """Format measurements as lines, one per graph.

    >>> for line in table([Parity("clip_image", 48, 0.99999, 1.0, 3e-4, 2_900_000)]):
    ...     print(line)
    graph           MB  inputs  least cosine  top-10 overlap  largest difference
    clip_image     2.9      48     0.9999900          1.0000             3.0e-04
    """
    head = f"{'graph':11s} {'MB':>6s}  inputs  least cosine  top-10 overlap  largest difference"
    return [head] + [
        f"{one.graph:11s} {one.size_bytes / 1e6:6.1f}  {one.inputs:6d}  {one.least_cosine:12.7f}  {one.overlap:14.4f}  "
        f"{one.largest_difference:18.1e}"
        for one in parities
    ]


def _unit(vectors: Vectors) -> npt.NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def sample_texts(count: int = COUNT) -> list[str]:
    """Return the same captions each time, unusual ones and then plain ones of several lengths; at most 49."""
    plain = (frame.format(name) for name, frame in product(_OBJECTS, _FRAMES))
    return [*SAMPLE_TEXTS, *plain][:count]


@cache
def sample_images(count: int = COUNT) -> tuple[ImageInput, ...]:
    """Return the same images each time: gradients with random shapes in several sizes. Do not change them."""
    rng = random.Random(0)
    return tuple(_draw(rng) for _ in range(count))


def _draw(rng: random.Random) -> ImageInput:
    from PIL import Image, ImageDraw  # here, since commands import this module for precisions only

    size = (rng.randint(80, 500), rng.randint(80, 500))
    gradient = Image.linear_gradient("L").resize(size)
    image = Image.merge("RGB", [gradient.rotate(90 * rng.randrange(4)) for _ in "RGB"])
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        box = (x, y, x + rng.randint(5, 120), y + rng.randint(5, 120))
        rng.choice((pen.ellipse, pen.rectangle))(box, fill=tuple(rng.randrange(256) for _ in range(3)))
    return image
