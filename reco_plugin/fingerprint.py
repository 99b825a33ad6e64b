"""Whether two fingerprints are of one encoder.

That of a model folder is a checksum. Of an API it is measured: ``api-`` and a sketch of vectors of fixed inputs, which
differs a little each time, so that it is compared by distance.
"""

from __future__ import annotations

import base64
import hashlib

import numpy as np
import numpy.typing as npt

from .types import Fingerprint, Vectors

MEASURED = "api-"
"""What the digest of a measured encoder begins with."""
CHANGED = 0.005
"""Distance, 1 - cosine, from which an API has another model: rounding and batches make less than 0.001."""
_DIRECTIONS, _SEED = 16, 2306  # coordinates per vector
_UNIT = 4096.0  # of a coordinate, as 16 bits
_COARSE = 32  # signs that are hashed: the same for nearly every measurement of one model


def make_sketch(model: str, texts: Vectors, images: Vectors) -> str:
    """The digest of an API's model, from its vectors (T, D) and (I, D) of the fixed inputs.

    Its first 16 letters name the model for caches, and are nearly always the same; the rest holds the coordinates.
    """
    coordinates = np.concatenate([_project(texts), _project(images)])
    packed = np.clip(np.rint(coordinates * _UNIT), -32767, 32767).astype("<i2")
    signs = (coordinates.ravel()[:_COARSE] > 0).tobytes()
    name = hashlib.sha256(model.encode() + str(texts.shape[1]).encode() + signs).hexdigest()[:12]
    rows = f"{len(texts)}x{len(images)}"
    return f"{MEASURED}{name}-{rows}-{base64.urlsafe_b64encode(packed.tobytes()).decode()}"


def are_one_encoder(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether vectors of both may be compared."""
    if one.dimension != other.dimension:
        return False
    return one.digest == other.digest or sketch_change(one.digest, other.digest) is None


def sketch_change(one: str, other: str) -> str | None:
    """What differs between two measured digests, for people; None if they are of one model.

    >>> sketch_change("d1", "d2")
    'its fingerprint is another one'
    """
    before, now = _read(one), _read(other)
    if before is None or now is None:
        return "its fingerprint is another one"
    (texts, rows), (texts_now, rows_now) = before, now
    if (texts, len(rows)) != (texts_now, len(rows_now)):
        return "it took images when it was measured, and takes none, or the other way round"
    distance = np.mean((rows - rows_now) ** 2, axis=1) / 2  # of unit vectors, 1 - cosine
    changed = {"texts": distance[:texts], "images": distance[texts:]}
    words = [f"{what} by {part.mean():.3f}" for what, part in changed.items() if len(part) and part.mean() > CHANGED]
    return f"vectors of fixed {' and of '.join(words)} (1 - cosine)" if words else None


def _project(vectors: Vectors) -> npt.NDArray[np.float64]:
    """(B, 16): about normal, of unit vectors."""
    directions = np.random.RandomState(_SEED).standard_normal((vectors.shape[1], _DIRECTIONS))  # frozen by numpy
    return np.asarray(vectors, np.float64) @ directions


def _read(digest: str) -> tuple[int, npt.NDArray[np.float64]] | None:
    """How many of the rows are texts, and their coordinates (T + I, 16); None of a digest that was not measured."""
    try:
        prefix, _, rows, packed = digest.split("-", 3)
        texts, images = map(int, rows.split("x"))
        values = np.frombuffer(base64.urlsafe_b64decode(packed), "<i2").reshape(texts + images, _DIRECTIONS)
    except ValueError:
        return None
    return (texts, values / _UNIT) if f"{prefix}-" == MEASURED else None
