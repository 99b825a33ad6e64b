"""What the readers of COCO and Flickr30k share: images with captions, and where the images lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .source import Source


@dataclass(frozen=True)
class CaptionedFile:
    """An image file with its captions.

    Attributes:
        name: as the data set calls the file; its id.
        path: where it lies.
        captions: none for a distractor.
    """

    name: str
    path: Path
    captions: tuple[str, ...]

    @property
    def caption_ids(self) -> tuple[str, ...]:
        """An id for each caption, as Flickr30k writes them: ``1000092795.jpg#0``."""
        return tuple(f"{self.name}#{number}" for number in range(len(self.captions)))


def locate(source: Source, captions: dict[str, tuple[str, ...]], folders: Sequence[str]) -> list[CaptionedFile]:
    """Find the image files of a caption file.

    Args:
        source: the caption file; its option ``images`` says where the images are, ``captions`` how many are kept of
            each image.
        captions: image file -> its captions.
        folders: names of folders to try, beside the caption file and one level up, where ``images`` is not given.

    Raises:
        DataError: no images, or a file that is not there.
    """
    if not any(captions.values()):
        raise DataError(f"{source.name} holds no image with a caption")
    beside = source.path.parent
    tried = [base / folder for base in (beside, beside.parent) for folder in (*folders, ".")]
    if "images" in source.options:
        tried = [Path(source.options["images"]).expanduser()]
    first = next(iter(captions))
    folder = next((folder for folder in tried if (folder / first).is_file()), None)
    if folder is None:
        looked = ", ".join(map(str, tried))
        raise DataError(
            f"{source.name}: the image {first!r} is not in {looked}; say where the images lie with ?images=DIR"
        )
    most = source.count("captions")
    files = [CaptionedFile(name, folder / name, texts[:most]) for name, texts in captions.items()]
    if missing := [file.path for file in files if not file.path.is_file()]:
        raise DataError(f"{missing[0]} does not exist ({len(missing):,} of {len(files):,} images are missing)")
    return files
