"""Names of a collection's vectors and points: ours, or those of an attached collection."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from qdrant_client import models

from ..errors import MemoryStoreError
from ..types import MODALITIES, Modality
from .checks import CheckedSearch
from .filters import WITNESSES
from .points import FilterConstructors, point_id

LAYOUT_KEY = "reco_layout"
"""Key of the layout in a collection's metadata; a collection without it has our layout."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}")
_DISTANCES = (models.Distance.COSINE, models.Distance.DOT)


_WORDS = FilterConstructors(
    filter=models.Filter,
    field=models.FieldCondition,
    range=models.Range,
    match_any=lambda values: models.MatchAny(any=values),
    match_flag=lambda flag: models.MatchValue(value=flag),
    has_id=lambda points: models.HasIdCondition(has_id=list(points)),
)


@dataclass(frozen=True)
class Layout:
    """Names in a collection."""

    image: str = "image"  # name of the image vector
    text: str = "text"  # name of the text vector
    attached: bool = False
    """Another system fills the collection: points keep their own ids, may lack a vector, and hold no keys of ours."""
    writable: bool = True  # pairs may be added and removed
    words: bool = False  # points have the words of their captions: said by the collection, not by its metadata

    def name(self, modality: Modality) -> str:
        """Name of a modality's vector."""
        return self.image if modality == "image" else self.text

    @property
    def names(self) -> dict[Modality, str]:
        """Modality -> name of its vector."""
        return {modality: self.name(modality) for modality in MODALITIES}

    def point_id(self, user_id: str) -> int | str:
        """Id of the point that holds a pair.

        >>> Layout(attached=True).point_id("17"), Layout().point_id("17")
        (17, '5a84dd1b-a9ae-5f0f-8dd0-4f3ec490945b')
        """
        if self.attached and _NUMBER.fullmatch(user_id) and int(user_id) < 2**64:
            return int(user_id)
        return point_id(user_id)

    def complete(self) -> list[models.HasVectorCondition]:
        """Conditions that make a point a pair; empty if every point is one."""
        names = [self.image, self.text] if self.attached else []
        return [models.HasVectorCondition(has_vector=name) for name in names]

    def pairs_only(self) -> models.Filter | None:
        """:meth:`complete` as a filter; None if every point is a pair."""
        complete: list[Any] = [*self.complete()]
        return models.Filter(must=complete) if complete else None

    def unjudged(self) -> models.Filter:
        """The pairs without witnesses."""
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=WITNESSES))
        return models.Filter(must=[*self.complete(), empty])

    def filters(self, wanted: CheckedSearch) -> Iterator[models.Filter | None]:
        """One filter per query of a search; None without conditions."""
        return _WORDS.filters(wanted, self.complete(), self.point_id)

    def to_json(self) -> dict[str, Any]:
        """The layout as JSON-like values."""
        return {name: value for name, value in asdict(self).items() if name != "words"}

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any], place: str) -> Layout:
        """The layout in a collection's metadata, or ours.

        Raises:
            MemoryStoreError: it is not an output of :meth:`to_json`.
        """
        stored = metadata.get(LAYOUT_KEY)
        if stored is None:
            return cls()
        try:
            return cls(
                str(stored["image"]), str(stored["text"]), bool(stored["attached"]), stored.get("writable") is True
            )
        except (KeyError, TypeError) as error:
            raise MemoryStoreError(
                f"{LAYOUT_KEY!r} in {place} is damaged ({error!r}): attach it again, reco memory attach --help"
            ) from error

    def check(self, vectors: Any, dimension: int, place: str) -> None:
        """Refuse a collection whose ``config.params.vectors`` lack one of the two, or have another form of it.

        Raises:
            MemoryStoreError: a missing vector, another dimension, or a distance other than cosine or dot.
        """
        named: dict[str, models.VectorParams] = vectors if isinstance(vectors, dict) else {}
        for modality in MODALITIES:
            name = self.name(modality)
            if name not in named:
                there = ", ".join(map(repr, sorted(named))) if named else "one without a name" if vectors else "none"
                raise MemoryStoreError(
                    f"{place} has no vector named {name!r} for {modality}s; its vectors: {there}. "
                    "Name its two vectors: reco memory attach --image-vector NAME --text-vector NAME"
                )
            found = named[name]
            if found.size != dimension or found.multivector_config is not None:
                raise MemoryStoreError(
                    f"the vector {name!r} of {place} has {found.size} dimensions"
                    f"{', several per point' if found.multivector_config else ''}, but the encoder makes one of "
                    f"{dimension}: it is of another encoder, use that one's model"
                )
            if found.distance not in _DISTANCES:
                raise MemoryStoreError(
                    f"the vector {name!r} of {place} is compared by {found.distance.value}, expected Cosine (or Dot "
                    "with unit-norm vectors): build a memory of it as an index: "
                    "reco memory build 'URL?collection=NAME&vector=NAME&text=KEY'"
                )
