"""Rows of webdataset shards as img2dataset writes them, with the downloads that failed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, MissingExtra
from ..types import Pair
from .cells import CellError, payload_of, text_of
from .columns import open_parquet_file
from .parts import Rejected, RowError, SourcePart
from .shards import ShardSample, index_shard

_NOT_SHOWN = ("caption", "exif", "error_message", "status", "key")  # of img2dataset's json: no payload
_STATUS = ("key", "status", "error_message")


@dataclass(frozen=True)
class ShardPart:
    """A shard, and the ``.parquet`` of the same name with img2dataset's status of each download."""

    shard: Path

    @property
    def name(self) -> str:
        """The file."""
        return str(self.shard)

    def read(self) -> Iterator[Pair | Rejected]:
        """A row for each key, then one for each download that failed."""
        try:
            index = index_shard(self.shard)
        except DataError as error:
            yield Rejected(self.name, str(error))
            return
        for sample in index.samples:
            try:
                yield self._row(sample)
            except RowError as error:
                yield Rejected(error.rejected.where, error.rejected.reason, sample.key)
            except DataError as error:
                yield Rejected(f"{self.shard}, key {sample.key}", str(error), sample.key)
        if index.problem:
            yield Rejected(self.name, index.problem)
        yield from self._read_failures({sample.key for sample in index.samples})

    def _row(self, sample: ShardSample) -> Pair | Rejected:
        where = f"{self.shard}, key {sample.key}"
        if sample.twice:
            return Rejected(where, f"{sample.twice!r} twice: make its keys unique", sample.key)
        fields = _json_fields(sample)
        if sample.image is None:
            return Rejected(where, _why(fields) or "there is no image", sample.key, half=True)
        raw = sample.parts["txt"].text() if "txt" in sample.parts else str(fields.get("caption") or "")
        if not raw.strip():
            return Rejected(where, "there is no caption", sample.key, half=True)
        try:
            text = text_of(raw)
            shown = payload_of({name: value for name, value in fields.items() if name not in _NOT_SHOWN})
        except CellError as error:
            return Rejected(where, str(error), sample.key)
        return Pair(sample.key, sample.image.read(), text, {"caption": text} | shown)

    def _read_failures(self, keys: set[str]) -> Iterator[Rejected]:
        beside = _status_file(self.shard)
        if not beside.is_file():
            return
        try:
            with open_parquet_file(beside) as file:
                has = file.schema_arrow.names
                if not {"key", "status"} <= set(has):
                    return
                for batch in file.iter_batches(columns=[name for name in _STATUS if name in has]):
                    for row in batch.to_pylist():
                        key = str(row["key"])
                        if row["status"] != "success" and key not in keys:
                            yield Rejected(f"{beside}, key {key}", _why(row) or "status missing", key, half=True)
        except MissingExtra:
            return  # warned about when the source was opened
        except (DataError, OSError, ValueError) as error:
            yield Rejected(str(beside), f"{error} (failed downloads are not listed)")


def open_shards(shards: list[Path]) -> tuple[SourcePart, ...]:
    """Open shards, a part each; warns where failed downloads cannot be listed without pyarrow."""
    noted = next((file for file in map(_status_file, shards) if file.is_file()), None)
    if noted is not None:
        try:
            open_parquet_file(noted).close()
        except MissingExtra as error:
            warnings.warn(f"failed downloads are not listed: {error}", stacklevel=4)
        except DataError:
            pass  # a rejected row reports it
    return tuple(map(ShardPart, shards))


def _status_file(shard: Path) -> Path:
    return shard.with_suffix(".parquet")


def _why(fields: Mapping[str, Any]) -> str:
    """The status of a failed download by img2dataset."""
    if fields.get("status") in (None, "success"):
        return ""
    message = fields.get("error_message")
    return f"img2dataset: {fields['status']}" + (f": {message}" if message else "")


def _json_fields(sample: ShardSample) -> dict[str, Any]:
    if "json" not in sample.parts:
        return {}
    blob = sample.parts["json"]
    where = f"{blob.shard}, member {blob.name!r}"
    try:
        fields = json.loads(blob.text())
    except (ValueError, RecursionError) as error:
        raise RowError(where, f"is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RowError(where, f"is not a JSON object: {blob.text()[:60]!r}")
    return fields
