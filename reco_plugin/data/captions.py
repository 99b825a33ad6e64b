"""Images of a folder, each with its caption in a ``.txt`` of the same name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ..errors import DataError
from ..types import Pair
from .cells import CellError, text_of
from .rows import FilePart, Rejected, Rows
from .source import find_images, read_text

_IMAGES_PER_PART = 1000


def open_folder(folder: Path) -> Rows:
    """Open the images below a folder, each with a ``.txt`` of the same name, a thousand in a part."""
    names = [image.relative_to(folder).as_posix() for image in find_images(folder)]
    slices = (names[start : start + _IMAGES_PER_PART] for start in range(0, len(names), _IMAGES_PER_PART))
    parts = tuple(
        FilePart(f"{folder}, {len(some):,} images from {some[0]!r}", partial(_read_images, folder, some))
        for some in slices
    )
    return Rows(str(folder), parts, len(names), folders=(folder,))


def _read_images(folder: Path, names: Sequence[str]) -> Iterator[Pair | Rejected]:
    for name in names:
        image = folder / name
        beside = image.with_suffix(".txt")
        if not beside.is_file():
            yield Rejected(str(image), f"there is no {beside.name!r} with its caption", name, half=True)
            continue
        try:
            text = text_of(read_text(beside))
        except CellError:
            yield Rejected(str(image), f"its caption {beside.name!r} is empty", name, half=True)
        except DataError as error:
            yield Rejected(str(image), str(error).replace(str(beside), repr(beside.name)), name)
        else:
            yield Pair(name, image, text, {"caption": text})
