"""webdataset shards: tars in which adjacent members of one key are a sample.

``a/0001.jpg``, ``a/0001.txt`` and ``a/0001.json`` have the key ``a/0001``: it ends at the first dot of the
file name.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from ..errors import DataError
from ..types import Pair
from .cells import CellError, make_payload, parse_json_object, parse_text
from .location import IMAGE_SUFFIXES
from .rows import FilePart, Rejected, Rows

_NO_PAYLOAD = ("caption", "exif", "error_message", "status", "key")  # fields of img2dataset's json


def open_shards(shards: list[Path]) -> Rows:
    """Open shards, one part each."""
    return Rows(str(shards[0]), tuple(FilePart(str(shard), partial(_read_shard, shard)) for shard in shards))


def _read_shard(shard: Path) -> Iterator[Pair | Rejected]:
    """Read a row for each key."""
    try:
        with tarfile.open(shard, "r:") as tar:
            files = (member for member in tar if member.isreg() and not member.name.startswith("__"))
            for key, members in groupby(files, lambda member: _split(member)[0]):
                yield _row(tar, f"{shard}, key {key}", key, list(members))
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{shard} cannot be read as a plain, uncompressed tar: {error}; unpack .tar.gz first, fetch a damaged "
            "shard again"
        ) from None


def _split(member: tarfile.TarInfo) -> tuple[str, str]:
    """Split a member's name into its key and its suffix in lower case."""
    folder, slash, name = member.name.removeprefix("./").rpartition("/")
    stem, _, suffix = name.partition(".")
    return folder + slash + stem, suffix.lower()


def _row(tar: tarfile.TarFile, where: str, key: str, members: Sequence[tarfile.TarInfo]) -> Pair | Rejected:
    parts = {_split(member)[1]: member for member in members}
    image = next((parts[suffix] for suffix in IMAGE_SUFFIXES if suffix in parts), None)
    try:
        if len(parts) < len(members):
            raise CellError("two members have the same name: make keys unique")
        fields = parse_json_object(_text(tar, parts["json"]), "its .json") if "json" in parts else {}
        if image is None:
            return Rejected(where, "there is no image", key, is_incomplete=True)
        caption = _text(tar, parts["txt"]) if "txt" in parts else str(fields.get("caption") or "")
        if not caption.strip():
            return Rejected(where, "there is no caption", key, is_incomplete=True)
        text = parse_text(caption)
        payload = make_payload({name: value for name, value in fields.items() if name not in _NO_PAYLOAD})
    except CellError as error:
        return Rejected(where, str(error), key)
    return Pair(key, _read(tar, image), text, {"caption": text} | payload)


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # noqa: S101 - of a regular file
    return file.read()


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    try:
        return _read(tar, member).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CellError(f"{member.name!r} is not UTF-8 text: {error}") from None
