"""Rows of a search engine's index: its vectors where they are of this encoder, else its pictures and captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from ..api_encoder import load_model
from ..data.cells import CellError, address_of, image_of, text_of, unit_rows
from ..data.images import RemoteImage
from ..data.rows import Rejected, Rows
from ..data.same_encoder import COMPARED, LEAST
from ..data.source import SIGNED
from ..engines import Description, Document, IndexAddress, open_index, parse_address
from ..errors import ConfigError, DataError, FingerprintMismatch, RecoError
from ..files import in_home
from ..reco import Reco
from ..types import Modality, Pair
from ..values import check_choice, strip_marks

Holds: TypeAlias = Literal["image", "text", "neither"]
"""Whose vectors an index holds: its pictures', its captions', or ones of no use here."""
_AT_ONCE = 500


@dataclass(frozen=True)
class IndexPart:
    """An index of a search engine. It does not hold the engine's keys: the reader takes them from the settings."""

    address: IndexAddress
    holds: Holds

    @property
    def name(self) -> str:
        """Its address, without the names of its fields."""
        return name_of(self.address)

    def read(self) -> Iterator[Pair | Rejected]:
        """Its documents in order, as pairs."""
        with closing(open_index(self.address)) as index:
            for page in index.scan(vectors=self.holds != "neither", size=_AT_ONCE):
                yield from self._rows(page.documents)

    def _rows(self, documents: Sequence[Document]) -> Iterator[Pair | Rejected]:
        with_vector = [document for document in documents if document.vector is not None]
        sides = dict[str, Any]()
        if with_vector:
            block = np.stack([np.asarray(document.vector) for document in with_vector])
            norms = np.linalg.norm(block, axis=1, keepdims=True)  # an engine may store them at any length
            units = unit_rows(np.divide(block, norms, out=np.zeros_like(block), where=norms > 0))
            sides = dict(zip((document.id for document in with_vector), units, strict=True))
        for document in documents:
            yield self._row(document, sides.get(document.id))

    def _row(self, document: Document, vector: Any) -> Pair | Rejected:
        where = f"{self.name}, document {document.id!r}"
        if document.problem is not None:
            return Rejected(where, document.problem, document.id or None)
        if isinstance(vector, CellError):
            return Rejected(where, f"its vector {vector}", document.id)
        payload = strip_marks(document.payload)
        try:
            text = vector if self.holds == "text" and vector is not None else self._text(document)
            image = vector if self.holds == "image" and vector is not None else self._image(document)
            if isinstance(document.image, str):
                payload.setdefault("image", address_of(document.image, signed=self._signed))
            if document.text is not None:
                payload.setdefault("caption", text_of(document.text))
        except CellError as error:
            half = document.text is None or (document.image is None and document.vector is None)
            return Rejected(where, str(error), document.id, half)
        return Pair(document.id, image, text, payload)

    def _text(self, document: Document) -> str:
        if document.text is None:
            raise CellError(f"it has no caption in {self.address.text!r}")
        return text_of(document.text)

    def _image(self, document: Document) -> Any:
        if document.image is None:
            raise CellError("it has neither a vector nor a picture" if self.holds == "image" else "it has no picture")
        return image_of(document.image, in_home(self.address.images or "."), signed=self._signed)

    @property
    def _signed(self) -> bool:
        return self.address.images == SIGNED


def name_of(address: IndexAddress) -> str:
    """The name of an index as a source: its address, without user and names of fields, so that both may change."""
    place = address.place
    if address.user is not None:
        place = place.replace(f"{address.user}@", "", 1)
    elif not address.host and address.path and "://" not in place:
        place = f"{address.scheme}:{in_home(address.path).absolute()}"
    own = "&".join(f"{name}={value}" for name, value in sorted(address.options.items()))
    return f"{place}?{own}" if own else place


def open_index_rows(source: str, model: Path | None) -> Rows:
    """Open an index as a source of pairs.

    Its vectors are compared with up to 32 of its captions and pictures, which says whose they are, and whether this
    encoder made them; where another one did, its pictures are encoded anew.

    Args:
        source: the address; ``of=image``, ``text`` or ``neither`` says whose vectors it holds, ``check=0`` takes them
            for an image's without a comparison.
        model: folder of the model; None: nothing is encoded.

    Raises:
        ConfigError: an unknown option, or no field of captions.
        FingerprintMismatch: its vectors are of another encoder, and no pictures are at hand.
        EngineError: the engine refuses; EngineUnavailable: it cannot be reached.
        DataError: the index is empty.
    """
    address = parse_address(source)
    own = dict(address.options)
    of, check = own.pop("of", None), own.pop("check", None)
    address = replace(address, options=own)
    if of is not None:
        check_choice("of", of, get_args(Holds))
    if check not in (None, "0", "1"):
        raise ConfigError(f"{address.place}: option check={check!r} must be 1 or 0")
    with closing(open_index(address)) as index:
        said = index.describe()
        if not said.documents:
            raise DataError(f"{name_of(address)} holds no pairs: it is empty")
        _check_fields(address, said, of)
        sample = _sample(index.scan(size=COMPARED)) if of is None and check != "0" and model is not None else []
    holds, note, agree = _whose(address, said, of, model, sample)
    folders = (in_home(address.images),) if address.images else ()
    compare = None if check is None else check == "1"
    parts = (IndexPart(address, holds),)
    return Rows(name_of(address), parts, said.documents, compare, note=note, told=agree, folders=folders)


def _check_fields(address: IndexAddress, said: Description, of: str | None) -> None:
    if address.text is None and of != "text":
        raise ConfigError(
            f"{address.place}: say which field holds the captions, text=NAME. Its fields: {', '.join(said.fields)}"
        )
    if address.image is None and of in ("text", "neither"):
        raise ConfigError(
            f"{address.place}: of={of} needs the field of the pictures' paths or URLs, image=NAME. "
            f"Its fields: {', '.join(said.fields)}"
        )


def _sample(pages: Iterator[Any]) -> list[Document]:
    """Some documents with vectors, of the first pages."""
    found = [document for page in islice(pages, 4) for document in page.documents if document.vector is not None]
    return found[:COMPARED]


def _whose(
    address: IndexAddress, said: Description, of: str | None, model: Path | None, sample: Sequence[Document]
) -> tuple[Holds, str, bool]:
    """Whose vectors the index holds, a note for the user, and whether they were found to be of this encoder."""
    name, ours = name_of(address), None if model is None else load_model(model).manifest.fingerprint
    if of == "neither":
        return "neither", "", False
    if ours is not None and said.dimension != ours.dimension:
        why = f"{name} holds vectors of {said.dimension} dimensions, and the model makes {ours.dimension}"
        if of is None and address.image is not None:
            return "neither", f"{why}: its pictures are encoded instead", False
        raise FingerprintMismatch(
            f"{why}. Name the field of its pictures, image=NAME, and give of=neither to encode them"
        )
    if of is not None:
        return ("image" if of == "image" else "text"), "", False
    if model is None or not sample:
        return "image", "", False
    cosines = _compare(address, model, sample)
    for modality, least in LEAST.items():
        if modality in cosines and cosines[modality] >= least:
            what = "pictures" if modality == "image" else "captions"
            return modality, f"its vectors agree with its {what} (mean cosine {cosines[modality]:.3f})", True
    told = " and ".join(f"{cosine:.3f} with its {side}s" for side, cosine in cosines.items())
    if "image" not in cosines:  # only captions could be compared, and these are not theirs
        note = "no pictures are at hand: its vectors are taken for those of its pictures, of this encoder"
        return "image", note, False
    raise FingerprintMismatch(
        f"{name} holds vectors of another encoder, or averages of several vectors: their mean cosine is {told}. Give "
        "of=neither to encode its pictures and captions, of=image to take them all the same, or the model that made "
        "them (--model)"
    )


def _compare(address: IndexAddress, model: Path, sample: Sequence[Document]) -> Mapping[Modality, float]:
    """Mean cosines of the stored vectors with those of captions and of pictures, where they are at hand."""
    folder = in_home(address.images or ".")
    found: dict[Modality, list[float]] = {"image": [], "text": []}
    with Reco.open(model, ":memory:") as reco:
        encode: dict[Modality, Callable[[Any], Any]] = {"image": reco.encoder.images, "text": reco.encoder.texts}
        for document in sample:
            stored = np.asarray(document.vector) / max(float(np.linalg.norm(np.asarray(document.vector))), 1e-12)
            values: dict[Modality, str | bytes | None] = {"image": document.image, "text": document.text}
            for modality, value in values.items():
                if not value:
                    continue
                try:
                    side: Any = image_of(value, folder) if modality == "image" else value
                    side = side.read() if isinstance(side, RemoteImage) else side
                    found[modality].append(float(stored @ encode[modality]([side])[0]))
                except (CellError, RecoError, OSError):  # a picture that is away or damaged: others are compared
                    continue
    return {modality: float(np.mean(cosines)) for modality, cosines in found.items() if cosines}
