"""Rows of folders of images with captions, of COCO and Flickr30k, and of labelled sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DataError
from ..types import Pair
from .captions import CaptionedFile
from .cells import CellError, text_of
from .classes import TEMPLATES, fill
from .files import find_images, read_text
from .labelled import Labelled
from .labelled_sources import read_labelled
from .parts import FilePart, Rejected, SourcePart

_FILES_PER_PART = 1000
_T = TypeVar("_T")


@dataclass(frozen=True)
class ImageFolderPart:
    """Some images of a folder, each with a ``.txt`` of the same name."""

    folder: Path
    images: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its first image."""
        return f"{self.folder}, {len(self.images):,} images from {self.images[0]!r}"

    def read(self) -> Iterator[Pair | Rejected]:
        """Its images in order."""
        return map(self._row, self.images)

    def _row(self, name: str) -> Pair | Rejected:
        image = self.folder / name
        beside = image.with_suffix(".txt")
        if not beside.is_file():
            return Rejected(str(image), f"there is no {beside.name!r} with its caption", name, half=True)
        try:
            text = text_of(read_text(beside))
        except CellError:
            return Rejected(str(image), f"its caption {beside.name!r} is empty", name, half=True)
        except DataError as error:
            return Rejected(str(image), str(error).replace(str(beside), repr(beside.name)), name)
        return Pair(name, image, text, {"caption": text})


@dataclass(frozen=True)
class CaptionsPart:
    """Some images with several captions each, a pair for each caption."""

    source: str
    files: tuple[CaptionedFile, ...]

    @property
    def name(self) -> str:
        """Its first image."""
        return f"{self.source}, {len(self.files):,} images from {self.files[0].name!r}"

    def read(self) -> Iterator[Pair | Rejected]:
        """A pair for each caption."""
        for file in self.files:
            for id_, text in zip(file.caption_ids, file.captions, strict=True):
                yield Pair(id_, file.path, text, {"caption": text, "image": file.name})

    @property
    def folder(self) -> Path:
        """Folder of the images."""
        first = self.files[0]
        return first.path.parents[len(Path(first.name).parts) - 1]


@dataclass(frozen=True)
class LabelledPart(FilePart):
    """A labelled set; the text is the class name in the first template."""

    source: str

    @property
    def name(self) -> str:
        """The source."""
        return self.source

    def __reduce__(self) -> tuple[type[LabelledPart], tuple[Any, ...]]:
        return LabelledPart, (self.source,)  # the set itself is opened again

    @cached_property
    def labelled(self) -> Labelled:
        """The set.

        Raises:
            DataError: it cannot be read.
        """
        return read_labelled(self.source)

    def _read(self) -> Iterator[Pair | Rejected]:
        labelled = self.labelled
        template = (labelled.templates or TEMPLATES)[0]
        for row, label in enumerate(labelled.labels.tolist()):
            text = fill(template, labelled.classes[label])
            id_ = labelled.query_ids[row] if labelled.query_ids is not None else str(row)
            try:
                image = labelled.images[row]
            except DataError as error:
                yield Rejected(f"{labelled.name}, image {row}", str(error), id_)
            else:
                yield Pair(id_, image, text, {"caption": text, "class": labelled.classes[label]})


def open_folder(folder: Path) -> tuple[tuple[SourcePart, ...], int]:
    """Open the images below a folder, a thousand in a part; returns their number too."""
    names = [image.relative_to(folder).as_posix() for image in find_images(folder)]
    return tuple(ImageFolderPart(folder, tuple(some)) for some in _slices(names)), len(names)


def open_captions(source: str, files: Sequence[CaptionedFile]) -> tuple[SourcePart, ...]:
    """Open images with captions, a thousand in a part."""
    return tuple(CaptionsPart(source, tuple(some)) for some in _slices(files))


def _slices(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    return (items[start : start + _FILES_PER_PART] for start in range(0, len(items), _FILES_PER_PART))
