"""Whether the vectors that a source brings are of the encoder in use.

A file of vectors does not tell its encoder. Where the captions or the pictures are at hand as well, some of them are
encoded and compared with the vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..defaults import INGEST_BATCH
from ..encode import EncodesPairs
from ..errors import DataError, FingerprintMismatch, InputError
from ..types import MODALITIES, Modality, Pair, Payload, caption_of
from ..values import counted
from .images import RemoteImage
from .rows import Rows

COMPARED = 32
"""Captions, and as many pictures, that are compared."""
LEAST: Mapping[Modality, float] = {"image": 0.9, "text": 0.95}  # the picture at hand may be a smaller copy
"""Mean cosine of vectors of one encoder."""
_NAMES: Mapping[Modality, str] = {"image": "picture", "text": "caption"}
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
        picture = self._picture(payload)
        try:
            return None if picture is None else self._encoder.images([picture])[0]
        except InputError:  # damaged, or no picture
            return None

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
