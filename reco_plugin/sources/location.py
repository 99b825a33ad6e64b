"""Names of sources with options, ``catalogue.csv?images=photos&text=title``, and the files and columns they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path

from ..errors import ConfigError, DataError
from ..files import in_home
from ..values import did_you_mean, is_unicode, nearest, split_options


@dataclass(frozen=True)
class Location:
    """A source and its options."""

    name: str  # file, folder, pattern or address, without the options
    options: Mapping[str, str] = field(default_factory=dict)  # as written, without decoding

    @property
    def path(self) -> Path:
        """The name as a path."""
        return Path(self.name)

    @property
    def images(self) -> Path | None:
        """The folder of the option ``images``; None without it."""
        return in_home(self.options["images"]) if "images" in self.options else None

    def check_options(self, *known: str) -> None:
        """Check that all options are known.

        Raises:
            ConfigError: an unknown option; the message lists the known ones.
        """
        for option in self.options:
            if option not in known:
                has = f"its options are {', '.join(known)}" if known else "it takes none"
                near = f" ({did_you_mean(option, known)})" if nearest(option, known) else ""
                raise ConfigError(f"{self.name} has no option {option!r}{near}: {has}")


def parse_switch(place: str, option: str, value: str | None, default: bool) -> bool:
    """Parse an option that is 1 or 0; None means ``default``.

    Raises:
        ConfigError: another value.
    """
    if value not in (None, "0", "1"):
        raise ConfigError(f"{place}: option {option}={value!r} must be 1 or 0")
    return default if value is None else value == "1"


def parse_source(source: str | Path) -> Location:
    """Split a source from its options; a path that exists has none. A leading ``~`` is the home folder.

    Raises:
        ConfigError: an option is given twice.

    >>> parse_source("catalogue.csv?image=photo&text=title")
    Location(name='catalogue.csv', options={'image': 'photo', 'text': 'title'})
    >>> parse_source("shards/test-0?.tar")  # a pattern without options
    Location(name='shards/test-0?.tar', options={})
    """
    name, options = split_options(str(source))
    return Location(str(in_home(name)) if name.startswith("~") else name, options)


INDEX_PORTS = {
    "opensearch": 9200,
    "elasticsearch": 9200,
    "postgresql": 5432,
    "weaviate": 8080,
    "milvus": 19530,
    "lancedb": 0,
}
"""Scheme of an index's address -> the engine's default port; 0: a folder."""
QDRANT_PORTS = {"http": 6333, "https": 6333, "grpc": 6334, "grpcs": 6334}
"""The same for a Qdrant server; its URL is an index with the option ``vector``, else a memory."""


def is_index_address(text: str) -> bool:
    """Whether a source is the address of an index."""
    scheme, colon, _ = text.replace("postgres://", "postgresql://", 1).partition(":")
    return bool(colon) and (scheme in INDEX_PORTS or (scheme in QDRANT_PORTS and "vector" in split_options(text)[1]))


IMAGE_SUFFIXES = (
    "jpg", "jpeg", "png", "webp", "jfif", "avif", "heic", "heif", "gif", "bmp", "tif", "tiff", "jp2", "ppm", "pgm"
)  # fmt: skip
"""Image formats; if a shard has several images of one key, the first suffix here wins."""

_NUMBERED = re.compile(r"\d{3}\.(?=\D)")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BRACES = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")


def clean_name(name: str) -> str:
    """Make a readable class name from a numbered folder, as in CUB or Caltech-256.

    >>> clean_name("001.Black_footed_Albatross")
    'Black footed Albatross'
    """
    return _NUMBERED.sub("", name, count=1).replace("_", " ").strip()


CAPTIONS = tuple(f"captions{suffix}" for suffix in (".jsonl", ".csv", ".tsv", ".parquet"))


def caption_table(folder: Path) -> Path | None:
    """The file ``captions.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` in a folder, if it exists."""
    return next((folder / name for name in CAPTIONS if (folder / name).is_file()), None)


def find_images(folder: Path) -> list[Path]:
    """Find all images below a folder, sorted, without hidden files and folders."""
    found = (path for path in folder.rglob("*") if path.suffix.lower().lstrip(".") in IMAGE_SUFFIXES)
    return sorted(p for p in found if p.is_file() and not any(x.startswith(".") for x in p.relative_to(folder).parts))


def relative_names(folder: Path, images: Sequence[Path]) -> list[str]:
    """The paths of images relative to their folder, which become their ids.

    Raises:
        DataError: a path is not UTF-8.
    """
    names = [image.relative_to(folder).as_posix() for image in images]
    for name in names:
        if not is_unicode(name):
            raise DataError(f"the name of {os.fsencode(name)!r} in {folder} is not UTF-8: rename it")
    return names


def is_shards(source: str | Path) -> bool:
    """Whether a source is webdataset shards: a tar, a folder of tars, or a pattern that is not an existing path."""
    path = Path(source)
    if path.exists():
        return path.suffix.lower() == ".tar" or (path.is_dir() and any(path.glob("*.tar")))
    return path.suffix.lower() == ".tar" or has_magic(str(source)) or "{" in str(source)


def find_shards(source: str | Path) -> list[Path]:
    """Find the files that a path, a folder of tars, a glob or a brace pattern means, in order."""
    if Path(source).is_dir():
        shards = sorted(Path(source).glob("*.tar"))
    elif Path(source).exists():
        shards = [Path(source)]
    else:
        shards = [Path(name) for part in expand_braces(str(source)) for name in _expand_glob(part)]
    if missing := [shard for shard in shards if not shard.is_file()]:
        raise DataError(f"{missing[0]} does not exist ({len(missing)} of {len(shards)} shards of {source} are missing)")
    if not shards:
        raise DataError(f"no shard matches {source}: give a .tar, a folder of them, 'a/*.tar' or 'a/{{000..012}}.tar'")
    return shards


def expand_braces(pattern: str) -> list[str]:
    """Expand lists and number ranges as a shell does.

    >>> expand_braces("{train,test}-{08..10}.tar")[:4]
    ['train-08.tar', 'train-09.tar', 'train-10.tar', 'test-08.tar']
    """
    braces = _BRACES.search(pattern)
    if braces is None:
        return [pattern]
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    return [head + choice + rest for choice in _choices(braces.group(1)) for rest in expand_braces(tail)]


def _expand_glob(pattern: str) -> list[str]:
    return sorted(glob(pattern)) if has_magic(pattern) else [pattern]  # noqa: PTH207 - Path.glob takes no absolute ones


def _choices(inside: str) -> list[str]:
    numbers = _RANGE.fullmatch(inside)
    if numbers is None:
        return inside.split(",")
    first, last = numbers.groups()
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    step = 1 if int(first) <= int(last) else -1
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + step, step)]


def describe_missing_file(path: Path) -> str:
    """Describe a path that is not a file, for an error; suggests a similar name in the same folder."""
    if path.is_dir():
        return f"{path} is a folder, expected a file"
    try:
        close = nearest(path.name, [other.name for other in path.parent.iterdir()], 1)
    except OSError:
        return f"{path} does not exist, nor does {path.parent}"
    return f"{path} does not exist" + (f" (did you mean {str(path.with_name(close[0]))!r}?)" if close else "")


def read_lines(path: Path) -> list[str]:
    """Read the non-empty lines of a UTF-8 text file, without surrounding blanks.

    Raises:
        DataError: it cannot be read or is not UTF-8.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_text(path: Path) -> str:
    """Read a UTF-8 text file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from None


@dataclass(frozen=True)
class ColumnNames:
    """Names of a table's columns; all others are payload."""

    id: str = "id"
    image: str = "image"
    text: str = "text"

    @property
    def needed(self) -> tuple[str, ...]:
        """Required columns; the id is required only if its name was given."""
        return (self.image, self.text, *([self.id] if self.id != ColumnNames.id else []))


def column_names(where: Location, *more: str) -> ColumnNames:
    """The columns that the options of a source name; ``more`` are its other options."""
    names = tuple(vars(ColumnNames()))
    where.check_options(*names, *more)
    return ColumnNames(**{name: where.options[name] for name in names if name in where.options})


def check_columns(path: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Check that a table has the required columns."""
    if missing := [name for name in needed if name not in columns]:
        raise DataError(
            f"{path} has no column {' and no '.join(map(repr, missing))}; its columns are {list(columns)}. Name yours, "
            f"as in '{path}?id=sku&image=photo&text=title'"
        )


def describe_missing_ids(path: str, columns: Sequence[str], names: ColumnNames) -> str:
    """Explain which ids a table without a column of ids gets; empty if it has one."""
    if names.id in columns:
        return ""
    return (
        f"{path} has no {names.id!r}: the path or URL of the image is the id of a pair (of vectors, the number of "
        f"the row), so a renamed picture is another pair. If a column identifies the pairs, add ?id=COLUMN"
    )
