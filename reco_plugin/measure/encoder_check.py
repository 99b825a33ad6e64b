"""Whether the vectors of an index are of the encoder in use, and of what: pictures, captions, or means of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..data.cells import CellError, image_of
from ..data.images import RemoteImage
from ..data.same_encoder import COMPARED
from ..encode import EncodesPairs
from ..engines import Description, Document, Engine
from ..errors import DataError, EngineError, EngineUnavailable, FingerprintMismatch, InputError
from ..types import Fingerprint, Target, Vectors

_LEAST: Mapping[Target, float] = {"text": 0.95, "image": 0.9, "both": 0.93}
_LOOKED = 2000  # documents, after which the search for something to compare ends
_WHAT: Mapping[Target, str] = {"image": "pictures", "text": "captions", "both": "means of picture and caption"}


@dataclass(frozen=True)
class IndexCheck:
    """What comparing some documents with their pictures and captions said.

    Attributes:
        target: what the vectors are of; None: not known.
        said: the same for people.
        alarm: whether the vectors may be of another encoder.
    """

    target: Target | None
    said: str
    alarm: bool = False


def check_dimension(described: Description, encoder: Fingerprint) -> None:
    """Refuse an index of another dimension.

    Raises:
        FingerprintMismatch: it is.
    """
    if described.dimension != encoder.dimension:
        raise FingerprintMismatch(
            f"the index {described.name!r} holds vectors of {described.dimension} dimensions in {described.vector!r}, "
            f"and {encoder} makes {encoder.dimension}: give the model that made the index (--model), or name another "
            "field in the address (vector=NAME)"
        )


def check_encoder(
    index: Engine, encoder: EncodesPairs, name: str, folder: Path, *, allow_private: bool = False
) -> IndexCheck:
    """Compare up to 32 documents with what the encoder makes of their pictures and captions.

    Args:
        index: read by a scan.
        encoder: in use.
        name: of the encoder, for messages.
        folder: of relative paths of pictures.
        allow_private: whether pictures may be fetched from private addresses.

    Raises:
        FingerprintMismatch: pictures are at hand, and the vectors are neither of them nor of the captions.
    """
    try:
        some = _some(index)
    except EngineUnavailable:
        raise
    except EngineError as error:  # it is searched, and shows no vectors
        return IndexCheck(None, f"not checked to be of this encoder: {error}")
    read = [_read(document.image, folder, allow_private) for document in some]
    return _compare(some, read, encoder, name)


def _compare(
    some: Sequence[Document], read: Sequence[Path | bytes | None], encoder: EncodesPairs, name: str
) -> IndexCheck:
    """What the encoder makes of these documents' pictures, as read, and captions, beside their vectors.

    Raises:
        FingerprintMismatch: pictures are at hand, and the vectors are neither of them nor of the captions.
    """
    stored = [_unit(document.vector) for document in some if document.vector is not None]
    texts = [row for row, document in enumerate(some) if document.text]
    pictures = {row: image for row, image in enumerate(read) if image is not None}
    made: dict[Target, dict[int, Vectors]] = {"image": {}, "text": {}}
    if texts:
        made["text"] = dict(zip(texts, encoder.texts([some[row].text or "" for row in texts]), strict=True))
    for row, image in pictures.items():
        try:
            made["image"][row] = encoder.images([image])[0]
        except InputError:  # damaged, or no picture
            continue
    made["both"] = {row: _unit(one + made["text"][row]) for row, one in made["image"].items() if row in made["text"]}
    cosines = {
        target: float(np.mean([stored[row] @ vector for row, vector in found.items()]))
        for target, found in made.items()
        if found
    }
    agreeing = [target for target, cosine in cosines.items() if cosine >= _LEAST[target]]
    if agreeing:
        target = max(agreeing, key=lambda one: cosines[one] - _LEAST[one])
        count = len(made[target])
        said = f"its vectors are of this encoder: {count} {_WHAT[target]} agree (mean cosine {cosines[target]:.3f})"
        return IndexCheck(target, said)
    if made["image"]:
        raise FingerprintMismatch(
            f"the index holds vectors of another encoder than {name}: {len(made['image'])} pictures, encoded by this "
            f"one, and their stored vectors have a mean cosine of {cosines['image']:.3f}, expected at least "
            f"{_LEAST['image']}. Give the model that made the index (--model); if its vectors are of other pictures "
            "than these, leave image= out of the address"
        )
    return _unknown(stored, made["text"], some)


def _unknown(stored: list[Vectors], texts: Mapping[int, Vectors], some: Sequence[Document]) -> IndexCheck:
    """What can be said without pictures: whether captions find their own document among these by more than chance."""
    if not any(document.image for document in some) and not texts:
        return IndexCheck(
            None, "not checked: no picture and no caption of a document is known (an address names them: image=, text=)"
        )
    unread = "no picture could be read" if any(document.image for document in some) else "the address names no image="
    if len(texts) < 8:
        return IndexCheck(None, f"not checked to be of this encoder: {unread}")
    rows = list(texts)
    cosines = np.stack([texts[row] for row in rows]) @ np.stack([stored[row] for row in rows]).T
    ranks = (cosines > np.diag(cosines)[:, None]).mean(axis=1)
    chance = 0.5 - 2 * np.sqrt(1 / 12 / len(rows))
    if float(ranks.mean()) < chance:
        return IndexCheck(
            None,
            f"not compared with pictures ({unread}), but {len(rows)} captions find their own document among these "
            "better than by chance, as with vectors of this encoder",
        )
    return IndexCheck(
        None,
        f"not compared with pictures ({unread}), and {len(rows)} captions find their own document among these no "
        "better than by chance: the vectors may be of another encoder. Name the pictures (image=) to be sure",
        alarm=True,
    )


def _some(index: Engine) -> list[Document]:
    """Documents with a vector and a caption or a picture, from the first pages of a scan."""
    found, looked = list[Document](), 0
    for page in index.scan(size=200):
        looked += len(page)
        found += [one for one in page if one.vector is not None and (one.text or one.image)]
        if len(found) >= COMPARED or looked >= _LOOKED:
            break
    return found[:COMPARED]


def _read(value: str | bytes | None, folder: Path, allow_private: bool) -> Path | bytes | None:
    if not value:
        return None
    try:
        image = image_of(value, folder)
        if isinstance(image, RemoteImage):
            return replace(image, timeout_s=5.0, allow_private=allow_private).read()
    except (CellError, DataError):
        return None
    return image


def _unit(vector: npt.NDArray[np.float32]) -> Vectors:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
