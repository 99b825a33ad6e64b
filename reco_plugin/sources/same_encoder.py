"""Check that the vectors of a source or an index come from the encoder in use.

A vector does not name its encoder. If captions or pictures are available, some of them are encoded and compared with
the vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..encoders.local import PairEncoder
from ..errors import DataError, EngineError, EngineUnavailable, FingerprintMismatch, InputError
from ..types import MODALITIES, Fingerprint, Modality, Pair, Payload, Target, Vectors, caption_of
from ..values import counted
from .cells import CellError, parse_image
from .images import RemoteImage
from .rows import Rows

if TYPE_CHECKING:
    from .indexes import Description, Document, Engine

COMPARED = 32
"""Number of captions, and of pictures, to compare."""
MIN_COSINE: Mapping[Target, float] = {"image": 0.9, "text": 0.95, "both": 0.93}  # the picture may be a smaller copy
"""Least mean cosine of vectors of the same encoder."""
_NAMES: Mapping[Target, str] = {"image": "picture", "text": "caption", "both": "mean of picture and caption"}
_OTHER_INPUTS: Mapping[Modality, str] = {"image": "other pictures than these", "text": "these captions in a prompt"}
_MAX_FAILED = 3  # downloads of pictures; then no more are tried
_MAX_VECTORS = 5000  # to search for a caption or picture to compare
_MIN_CAPTIONS = 8  # to tell better than chance


class EncoderCheck:
    """Compares the vectors of a source with its captions and pictures, for the first rows that have both."""

    def __init__(self, encoder: PairEncoder, name: str, rows: Rows, *, allow_private: bool = False) -> None:
        """Compare nothing yet; ``name`` is the encoder's, for messages."""
        self._encoder, self._name, self._rows, self._allow_private = encoder, name, rows, allow_private
        self._how_to_skip = rows.how_to_skip or f"give the option check=0, as in '{rows.name}?check=0'"
        self._cosines: dict[Modality, list[float]] = {modality: [] for modality in MODALITIES}
        self._seen: dict[Modality, int] = dict.fromkeys(MODALITIES, 0)  # vectors
        self._failed = 0  # downloads

    def compare(self, rows: Iterable[tuple[Mapping[Modality, Any], Payload]]) -> None:
        """Compare the next rows, given as their vectors (D,) and their payloads.

        Raises:
            FingerprintMismatch: the vectors are of another encoder.
            SessionError: the encoder failed.
        """
        for vectors, payload in rows:
            self._compare_row(vectors, payload)
        for modality, cosines in self._cosines.items():
            if cosines and (mean := float(np.mean(cosines))) < MIN_COSINE[modality]:
                raise self._mismatch(modality, len(cosines), mean)

    def compare_pairs(self, pairs: Iterable[Pair]) -> None:
        """Compare the sides of pairs that are vectors; errors as in :meth:`compare`."""
        self.compare(
            ({m: side for m in MODALITIES if isinstance(side := getattr(pair, m), np.ndarray)}, pair.payload)
            for pair in pairs
        )

    @property
    def is_incomplete(self) -> bool:
        """Whether a comparison is wanted and was not possible for the image vectors or the text vectors."""
        return self._rows.check and any(self._seen[m] and not self._cosines[m] for m in MODALITIES)

    @property
    def note(self) -> str | None:
        """How image vectors and text vectors were checked; None without any vector."""
        return "; ".join(self._note(modality) for modality in MODALITIES if self._seen[modality]) or None

    def _note(self, modality: Modality) -> str:
        cosines, what = self._cosines[modality], _NAMES[modality]
        if cosines:
            agree = f"{counted(len(cosines), f'{what} agrees', f'{what}s agree')} (mean cosine {np.mean(cosines):.3f})"
            return f"{modality} vectors are of this encoder: {agree}"
        why = f"no {what} is available" if self._rows.check else "check=0"
        return f"{modality} vectors were not checked to be of this encoder: {why}"

    def _compare_row(self, vectors: Mapping[Modality, Any], payload: Payload) -> None:
        for modality, vector in vectors.items():
            self._seen[modality] += 1
            cosines, wanted = self._cosines[modality], self._rows.check and self._seen[modality] <= _MAX_VECTORS
            if wanted and len(cosines) < COMPARED and (ours := self._encode(modality, payload)) is not None:
                cosines.append(float(ours @ vector))

    def _encode(self, modality: Modality, payload: Payload) -> Any:
        """Encode the caption or the picture to a vector (D,); None if it is not available."""
        if modality == "text":
            return self._encoder.texts([caption])[0] if (caption := caption_of(payload)) else None
        return _encode_picture(self._encoder, self._picture(payload))

    def _picture(self, payload: Payload) -> Path | bytes | None:
        """The picture that a payload names, a file or fetched bytes; None if it is not available."""
        name = payload.get("image")
        if not isinstance(name, str):
            return None
        if not name.startswith(("http://", "https://")):
            read = (_read_picture(name, folder, self._allow_private) for folder in self._rows.folders)
            return next((picture for picture in read if picture is not None), None)
        if self._failed == _MAX_FAILED:
            return None
        picture = _read_picture(name, Path(), self._allow_private)
        self._failed += picture is None
        return picture

    def _mismatch(self, modality: Modality, compared: int, mean: float) -> FingerprintMismatch:
        return FingerprintMismatch(
            f"{self._rows.name} holds {modality} vectors of another encoder than {self._name}: "
            f"{counted(compared, _NAMES[modality])}, encoded by this one, and the vectors have a mean cosine of "
            f"{mean:.3f}, expected at least {MIN_COSINE[modality]}. Give the model that made them (--model), or "
            f"pictures and captions instead of vectors. If they "
            f"were made of {_OTHER_INPUTS[modality]}, {self._how_to_skip}"
        )


@dataclass(frozen=True)
class IndexCheck:
    """Result of :func:`check_index`."""

    target: Target | None  # what the vectors encode; None: not known
    summary: str  # the result, for people
    is_doubtful: bool = False  # whether the vectors may be of another encoder


def check_index(
    index: Engine,
    described: Description,
    encoder: PairEncoder,
    made_by: Fingerprint,
    folder: Path,
    allow_private: bool = False,
) -> IndexCheck:
    """Compare the vectors of up to 32 documents with those that the encoder makes of their pictures and captions.

    ``folder`` is the base of relative paths of pictures.

    Raises:
        FingerprintMismatch: another dimension; or the vectors are neither of the pictures nor of the captions.
    """
    if described.dimension != made_by.dimension:
        raise FingerprintMismatch(
            f"the index {described.name!r} holds vectors of {described.dimension} dimensions in {described.vector!r}, "
            f"and {made_by} makes {made_by.dimension}: give the model that made the index (--model), or name another "
            "field in the address (vector=NAME)"
        )
    try:
        some = _sample_documents(index)
    except EngineUnavailable:
        raise
    except EngineError as error:  # the engine returns no vectors
        return IndexCheck(None, f"not checked to be of this encoder: {error}")
    stored = [_unit(one.vector) for one in some]
    texts = [row for row, one in enumerate(some) if one.text]
    read = (_encode_picture(encoder, _read_picture(one.image, folder, allow_private)) for one in some)
    made: dict[Target, dict[int, Vectors]] = {"image": {row: one for row, one in enumerate(read) if one is not None}}
    vectors = encoder.texts([some[row].text or "" for row in texts]) if texts else ()
    made["text"] = dict(zip(texts, vectors, strict=True))
    made["both"] = {row: _unit(one + made["text"][row]) for row, one in made["image"].items() if row in made["text"]}
    cosines = {
        target: float(np.mean([stored[row] @ vector for row, vector in one.items()]))
        for target, one in made.items()
        if one
    }
    if agreeing := [target for target, cosine in cosines.items() if cosine >= MIN_COSINE[target]]:
        target = max(agreeing, key=lambda one: cosines[one] - MIN_COSINE[one])
        what = counted(
            len(made[target]), f"{_NAMES[target]} agrees", f"{_NAMES[target]}s agree".replace("mean of", "means of")
        )
        return IndexCheck(target, f"its vectors are of this encoder: {what} (mean cosine {cosines[target]:.3f})")
    if made["image"]:
        raise FingerprintMismatch(
            f"the index holds vectors of another encoder than {made_by}: {len(made['image'])} pictures, encoded by "
            f"this one, and their stored vectors have a mean cosine of {cosines['image']:.3f}, expected at least "
            f"{MIN_COSINE['image']}. Give the model that made the index (--model); if its vectors are of other "
            "pictures than these, leave image= out of the address"
        )
    return _without_pictures(stored, made["text"], pictured=any(one.image for one in some))


def _without_pictures(stored: list[Vectors], texts: Mapping[int, Vectors], *, pictured: bool) -> IndexCheck:
    """Check by captions alone: do they find their own document among these better than by chance?"""
    if not pictured and not texts:
        return IndexCheck(
            None, "not checked: no picture and no caption of a document is known (an address names them: image=, text=)"
        )
    unread = "no picture could be read" if pictured else "the address names no image="
    if len(texts) < _MIN_CAPTIONS:
        return IndexCheck(None, f"not checked to be of this encoder: {unread}")
    rows = list(texts)
    cosines = np.stack([texts[row] for row in rows]) @ np.stack([stored[row] for row in rows]).T
    ranks = (cosines > np.diag(cosines)[:, None]).mean(axis=1)
    summary = (
        f"not compared with pictures ({unread}), {{}} {len(rows)} captions find their own document among these {{}}"
    )
    if float(ranks.mean()) < 0.5 - 2 * np.sqrt(1 / 12 / len(rows)):
        return IndexCheck(None, summary.format("but", "better than by chance, as with vectors of this encoder"))
    doubt = "no better than by chance: the vectors may be of another encoder. Name the pictures (image=) to be sure"
    return IndexCheck(None, summary.format("and", doubt), is_doubtful=True)


def _sample_documents(index: Engine) -> list[Document]:
    """Documents with a vector and a caption or a picture, from the first pages of a scan."""
    documents: list[Document] = []
    scanned = 0
    for page in index.scan(size=200):
        scanned += len(page)
        documents += [one for one in page if one.vector is not None and (one.text or one.image)]
        if len(documents) >= COMPARED or scanned >= _MAX_VECTORS:
            break
    return documents[:COMPARED]


def _read_picture(value: str | bytes | None, folder: Path, allow_private: bool) -> Path | bytes | None:
    if not value:
        return None
    try:
        image = parse_image(value, folder)
        if isinstance(image, RemoteImage):
            return replace(image, timeout_s=5.0, allow_private=allow_private).read()
    except (CellError, DataError):
        return None
    return image


def _encode_picture(encoder: PairEncoder, picture: Path | bytes | None) -> Vectors | None:
    """Encode a picture to a vector (D,); None if there is none, or it cannot be decoded."""
    try:
        return None if picture is None else np.asarray(encoder.images([picture])[0], np.float32)
    except InputError:
        return None


def _unit(vector: Any) -> Vectors:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
