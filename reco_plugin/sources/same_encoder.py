"""Whether the vectors that a source or an index holds are of the encoder in use.

Vectors do not tell their encoder. Where the captions or the pictures are at hand as well, some of them are encoded and
compared with the vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..defaults import INGEST_BATCH
from ..encoders.local import EncodesPairs
from ..errors import DataError, EngineError, EngineUnavailable, FingerprintMismatch, InputError
from ..types import MODALITIES, Fingerprint, Modality, Pair, Payload, Target, Vectors, caption_of
from ..values import counted
from .cells import CellError, image_of
from .images import RemoteImage
from .indexes.base import Description, Document, Engine
from .rows import Rows

COMPARED = 32
"""Captions, and as many pictures, that are compared."""
LEAST: Mapping[Target, float] = {"image": 0.9, "text": 0.95, "both": 0.93}  # the picture may be a smaller copy
"""Mean cosine of vectors of one encoder."""
_NAMES: Mapping[Target, str] = {"image": "picture", "text": "caption", "both": "mean of picture and caption"}
_ELSE: Mapping[Modality, str] = {"image": "other pictures than these", "text": "these captions in a prompt"}
_AWAY = 3  # pictures that could not be fetched, after which none is
_LOOKED = 5000  # vectors, after which the search for something to compare ends


class SameEncoder:
    """Compares the vectors of a source, as they come, until enough were compared.

    Args:
        encoder: in use.
        name: of the encoder, for messages.
        rows: the source.
        off: how to do without the check, for messages.
        allow_private: whether pictures may be fetched from private addresses.
    """

    def __init__(
        self, encoder: EncodesPairs, name: str, rows: Rows, off: str | None = None, *, allow_private: bool = False
    ) -> None:
        self._encoder, self._name, self._rows = encoder, name, rows
        self._off = off or f"give the option check=0, as in '{rows.name}?check=0'"
        self._wanted, self._allow_private = rows.check, allow_private
        self._cosines: dict[Modality, list[float]] = {modality: [] for modality in MODALITIES}
        self._looked: dict[Modality, int] = dict.fromkeys(MODALITIES, 0)
        self._away = 0

    def look(self, rows: Iterable[tuple[Mapping[Modality, Any], Payload]]) -> None:
        """Compare the next rows: the vectors (D,) that they brought, and their payloads.

        Raises:
            FingerprintMismatch: the vectors are too different to be of this encoder.
            SessionError: the encoder failed.
        """
        for vectors, payload in rows:
            self._compare(vectors, payload)
        for modality, found in self._cosines.items():
            if found and (mean := float(np.mean(found))) < LEAST[modality]:
                raise self._mismatch(modality, len(found), mean)

    def watch(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Yield pairs once their vectors were compared.

        Raises:
            FingerprintMismatch, SessionError: see :meth:`look`.
        """
        source = iter(pairs)
        while some := list(islice(source, INGEST_BATCH)):
            self.look(
                ({m: side for m in MODALITIES if isinstance(side := getattr(pair, m), np.ndarray)}, pair.payload)
                for pair in some
            )
            yield from some

    @property
    def misses(self) -> bool:
        """Whether vectors of a side could not be compared, though they should."""
        return self._wanted and any(self._looked[m] and not self._cosines[m] for m in MODALITIES)

    @property
    def note(self) -> str | None:
        """How the vectors of each side were checked; None if there were none to check."""
        brought = [modality for modality in MODALITIES if self._looked[modality]]
        return "; ".join(map(self._note, brought)) or None

    def _note(self, modality: Modality) -> str:
        found, what = self._cosines[modality], _NAMES[modality]
        if found:
            agree = f"{counted(len(found), f'{what} agrees', f'{what}s agree')} (mean cosine {np.mean(found):.3f})"
            return f"{modality} vectors are of this encoder: {agree}"
        why = "check=0" if not self._wanted else f"no {what} is at hand"
        return f"{modality} vectors were not checked to be of this encoder: {why}"

    def _compare(self, vectors: Mapping[Modality, Any], payload: Payload) -> None:
        for modality, vector in vectors.items():
            self._looked[modality] += 1
            found, seeks = self._cosines[modality], self._wanted and self._looked[modality] <= _LOOKED
            if seeks and len(found) < COMPARED and (ours := self._encode(modality, payload)) is not None:
                found.append(float(ours @ vector))

    def _encode(self, modality: Modality, payload: Payload) -> Any:
        """The vector (D,) of the caption or the picture; None where it is not at hand."""
        if modality == "text":
            return self._encoder.texts([caption])[0] if (caption := caption_of(payload)) else None
        return _encode_picture(self._encoder, self._picture(payload))

    def _picture(self, payload: Payload) -> Path | bytes | None:
        """The picture that a payload names: a file, or behind a URL; None where it is not at hand."""
        name = payload.get("image")
        if not isinstance(name, str) or not name:
            return None
        if name.startswith(("http://", "https://")):
            return self._fetched(name)
        places = (folder / name for folder in (*self._rows.folders, *self._rows.beside))
        try:
            return next((place for place in places if place.is_file()), None)
        except (OSError, ValueError):  # too long, or no path
            return None

    def _fetched(self, url: str) -> bytes | None:
        picture = RemoteImage(url, timeout_s=5.0, allow_private=self._allow_private)
        try:
            return picture.read() if self._away < _AWAY else None
        except DataError:
            self._away += 1
            return None

    def _mismatch(self, modality: Modality, compared: int, mean: float) -> FingerprintMismatch:
        return FingerprintMismatch(
            f"{self._rows.name} holds {modality} vectors of another encoder than {self._name}: "
            f"{counted(compared, _NAMES[modality])}, encoded by this one, and the vectors have a mean cosine of "
            f"{mean:.3f}, expected at least {LEAST[modality]}. Give the model that made them (--model), or pictures "
            f"and captions instead of vectors. If they were made of {_ELSE[modality]}, {self._off}"
        )


@dataclass(frozen=True)
class IndexCheck:
    """What comparing some documents of an index with their pictures and captions showed.

    Attributes:
        target: what the vectors are of; None: not known.
        said: the same for people.
        alarm: whether the vectors may be of another encoder.
    """

    target: Target | None
    said: str
    alarm: bool = False


def check_index(
    index: Engine,
    described: Description,
    encoder: EncodesPairs,
    made_by: Fingerprint,
    folder: Path,
    allow_private: bool = False,
) -> IndexCheck:
    """Compare up to 32 documents with what the encoder makes of their pictures and captions.

    Args:
        index: read by a scan.
        described: the same index.
        encoder: in use.
        made_by: the encoder's fingerprint.
        folder: of relative paths of pictures.
        allow_private: whether pictures may be fetched from private addresses.

    Raises:
        FingerprintMismatch: another dimension; or pictures are at hand, and the vectors are neither of them nor of the
            captions.
    """
    if described.dimension != made_by.dimension:
        raise FingerprintMismatch(
            f"the index {described.name!r} holds vectors of {described.dimension} dimensions in {described.vector!r}, "
            f"and {made_by} makes {made_by.dimension}: give the model that made the index (--model), or name another "
            "field in the address (vector=NAME)"
        )
    try:
        some = _documents(index)
    except EngineUnavailable:
        raise
    except EngineError as error:  # it is searched, and shows no vectors
        return IndexCheck(None, f"not checked to be of this encoder: {error}")
    stored = [_unit(one.vector) for one in some]
    texts = [row for row, one in enumerate(some) if one.text]
    read = (_encode_picture(encoder, _read(one.image, folder, allow_private)) for one in some)
    made: dict[Target, dict[int, Vectors]] = {"image": {row: one for row, one in enumerate(read) if one is not None}}
    vectors = encoder.texts([some[row].text or "" for row in texts]) if texts else ()
    made["text"] = dict(zip(texts, vectors, strict=True))
    made["both"] = {row: _unit(one + made["text"][row]) for row, one in made["image"].items() if row in made["text"]}
    cosines = {
        target: float(np.mean([stored[row] @ vector for row, vector in one.items()]))
        for target, one in made.items()
        if one
    }
    if agreeing := [target for target, cosine in cosines.items() if cosine >= LEAST[target]]:
        target = max(agreeing, key=lambda one: cosines[one] - LEAST[one])
        what = counted(
            len(made[target]), f"{_NAMES[target]} agrees", f"{_NAMES[target]}s agree".replace("mean of", "means of")
        )
        return IndexCheck(target, f"its vectors are of this encoder: {what} (mean cosine {cosines[target]:.3f})")
    if made["image"]:
        raise FingerprintMismatch(
            f"the index holds vectors of another encoder than {made_by}: {len(made['image'])} pictures, encoded by "
            f"this one, and their stored vectors have a mean cosine of {cosines['image']:.3f}, expected at least "
            f"{LEAST['image']}. Give the model that made the index (--model); if its vectors are of other pictures "
            "than these, leave image= out of the address"
        )
    return _without_pictures(stored, made["text"], pictured=any(one.image for one in some))


def _without_pictures(stored: list[Vectors], texts: Mapping[int, Vectors], *, pictured: bool) -> IndexCheck:
    """What captions alone show: whether they find their own document among these by more than chance."""
    if not pictured and not texts:
        return IndexCheck(
            None, "not checked: no picture and no caption of a document is known (an address names them: image=, text=)"
        )
    unread = "no picture could be read" if pictured else "the address names no image="
    if len(texts) < _CAPTIONS:
        return IndexCheck(None, f"not checked to be of this encoder: {unread}")
    rows = list(texts)
    cosines = np.stack([texts[row] for row in rows]) @ np.stack([stored[row] for row in rows]).T
    ranks = (cosines > np.diag(cosines)[:, None]).mean(axis=1)
    said = f"not compared with pictures ({unread}), {{}} {len(rows)} captions find their own document among these {{}}"
    if float(ranks.mean()) < 0.5 - 2 * np.sqrt(1 / 12 / len(rows)):
        return IndexCheck(None, said.format("but", "better than by chance, as with vectors of this encoder"))
    doubt = "no better than by chance: the vectors may be of another encoder. Name the pictures (image=) to be sure"
    return IndexCheck(None, said.format("and", doubt), alarm=True)


_CAPTIONS = 8  # that tell chance from more


def _documents(index: Engine) -> list[Document]:
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


def _encode_picture(encoder: EncodesPairs, picture: Path | bytes | None) -> Vectors | None:
    """The vector (D,) of a picture; None where it is not at hand, damaged, or no picture."""
    try:
        return None if picture is None else np.asarray(encoder.images([picture])[0], np.float32)
    except InputError:
        return None


def _unit(vector: Any) -> Vectors:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
