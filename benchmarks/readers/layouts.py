"""How a catalogue may lie on a disk: one writer for each layout, all of the same pairs."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from qdrant_client import QdrantClient, models

from reco_plugin.data.columns import write_pairs
from reco_plugin.memory import open_memory
from reco_plugin.types import Fingerprint, Records

from .catalogue import Entry

PER_SHARD = 5000
POINTS_AT_ONCE = 500


@dataclass(frozen=True)
class Layout:
    """A way to keep a catalogue.

    Attributes:
        write: writes pairs into an empty folder, or to a server, and returns what is given to the reader.
        id: what the reader makes of a pair's key.
        rejected: rows that it must list, for each shard.
        images: whether the pairs have images, not vectors.
        fresh: is written anew each time.
    """

    write: Callable[[Path, Sequence[Entry]], Path | str]
    id: Callable[[Entry], str] = lambda entry: entry.key
    rejected: int = 0
    images: bool = True
    fresh: bool = False


def _path(entry: Entry) -> str:
    return f"{int(entry.key) // 1000:03d}/{entry.key}.png"


def _files(folder: Path, entries: Sequence[Entry]) -> None:
    for entry in entries:
        path = folder / _path(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry.image)


def _row(entry: Entry) -> dict[str, Any]:
    return {"id": entry.key, "image": _path(entry), "text": entry.caption, "style": entry.style}


def beside(folder: Path, entries: Sequence[Entry]) -> Path:
    """Images, each with its caption in a .txt of the same name."""
    _files(folder, entries)
    for entry in entries:
        (folder / _path(entry)).with_suffix(".txt").write_text(entry.caption, encoding="utf-8")
    return folder


def table(suffix: str, delimiter: str) -> Callable[[Path, Sequence[Entry]], Path]:
    """Images, and captions.csv or captions.tsv."""

    def write(folder: Path, entries: Sequence[Entry]) -> Path:
        _files(folder, entries)
        with (folder / f"captions{suffix}").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ("id", "image", "text", "style"), delimiter=delimiter)
            writer.writeheader()
            writer.writerows(map(_row, entries))
        return folder

    return write


def lines(folder: Path, entries: Sequence[Entry]) -> Path:
    """Images, and a .jsonl that names them."""
    _files(folder, entries)
    path = folder / "catalogue.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(_row(entry), ensure_ascii=False) + "\n" for entry in entries)
    return path


def urls(base: str) -> Callable[[Path, Sequence[Entry]], Path]:
    """A .csv of URLs; the images are those of the first layout, which is served."""

    def write(folder: Path, entries: Sequence[Entry]) -> Path:
        path = folder / "catalogue.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ("id", "image", "text", "style"))
            writer.writeheader()
            writer.writerows(_row(entry) | {"image": f"{base}/{_path(entry)}"} for entry in entries)
        return path

    return write


def parquet_paths(folder: Path, entries: Sequence[Entry]) -> Path:
    """Images, and a .parquet that names them."""
    _files(folder, entries)
    path = folder / "catalogue.parquet"
    parquet.write_table(pa.Table.from_pylist(list(map(_row, entries))), path)
    return path


def parquet_bytes(folder: Path, entries: Sequence[Entry]) -> Path:
    """A .parquet that holds the images' bytes."""
    path = folder / "catalogue.parquet"
    rows = [_row(entry) | {"image": entry.image} for entry in entries]
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=PER_SHARD)
    return path


def webdataset(folder: Path, entries: Sequence[Entry]) -> Path:
    """Shards of png and txt."""
    for number, shard in enumerate(_shards(entries)):
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for entry in shard:
                _member(tar, f"{entry.key}.png", entry.image)
                _member(tar, f"{entry.key}.txt", entry.caption.encode())
    return folder


def img2dataset(folder: Path, entries: Sequence[Entry]) -> Path:
    """Shards as img2dataset writes them: png, txt and json, a .parquet beside each, with a row of a failed download."""
    for number, shard in enumerate(_shards(entries)):
        rows = [_told(entry) for entry in shard]
        with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
            for entry, row in zip(shard, rows, strict=True):
                _member(tar, f"{entry.key}.png", entry.image)
                _member(tar, f"{entry.key}.txt", entry.caption.encode())
                _member(tar, f"{entry.key}.json", json.dumps(row).encode())
        failed = {"key": f"9{number:08d}", "status": "failed_to_download", "error_message": "HTTP Error 404: Not Found"}
        parquet.write_table(pa.Table.from_pylist([*rows, rows[0] | failed]), folder / f"{number:05d}.parquet")
    return folder


def _told(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "url": f"https://example.org/{entry.key}.png",
        "caption": entry.caption,
        "status": "success",
        "error_message": None,
        "width": 64,
        "height": 64,
        "style": entry.style,
    }


def clip_retrieval(vectors: Records) -> Callable[[Path, Sequence[Entry]], Path]:
    """Folders img_emb, text_emb and metadata, as ``clip-retrieval inference`` writes them."""

    def write(folder: Path, entries: Sequence[Entry]) -> Path:
        for name in ("img_emb", "text_emb", "metadata"):
            (folder / name).mkdir()
        for number, shard in enumerate(_shards(entries)):
            rows = slice(number * PER_SHARD, (number + 1) * PER_SHARD)
            np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors.image[rows])
            np.save(folder / "text_emb" / f"text_emb_{number}.npy", vectors.text[rows])
            told = [{"image_path": entry.key, "caption": entry.caption, "style": entry.style} for entry in shard]
            parquet.write_table(pa.Table.from_pylist(told), folder / "metadata" / f"metadata_{number}.parquet")
        return folder

    return write


def arrays(vectors: Records) -> Callable[[Path, Sequence[Entry]], Path]:
    """image.npy, text.npy and id.npy, with the rest in metadata.parquet."""

    def write(folder: Path, entries: Sequence[Entry]) -> Path:
        columns = {"image": vectors.image, "text": vectors.text, "id": np.array([entry.key for entry in entries])}
        for name, values in columns.items():
            np.save(folder / f"{name}.npy", values)
        told = [{"caption": entry.caption, "style": entry.style} for entry in entries]
        parquet.write_table(pa.Table.from_pylist(told), folder / "metadata.parquet")
        return folder

    return write


def pair_file(suffix: str, vectors: Records) -> Callable[[Path, Sequence[Entry]], Path]:
    """One file of ids, vectors and payloads."""

    def write(folder: Path, entries: Sequence[Entry]) -> Path:
        path = folder / f"pairs{suffix}"
        write_pairs(path, [vectors])
        return path

    return write


def memory(vectors: Records, fingerprint: Fingerprint) -> Callable[[Path, Sequence[Entry]], Path]:
    """One of our memories, in a folder."""

    def write(folder: Path, entries: Sequence[Entry]) -> Path:
        with closing(open_memory(folder / "memory", fingerprint, kind="edge")) as filled:
            filled.upsert(vectors)
        return folder / "memory"

    return write


def collection(vectors: Records, server: str) -> Callable[[Path, Sequence[Entry]], str]:
    """A collection that somebody else filled: numbers as ids, vectors and a payload with names of their own."""

    def write(folder: Path, entries: Sequence[Entry]) -> str:
        params = models.VectorParams(size=vectors.image.shape[1], distance=models.Distance.COSINE)
        with closing(QdrantClient(url=server, check_compatibility=False)) as client:
            if client.collection_exists("shop"):
                client.delete_collection("shop")
            client.create_collection("shop", vectors_config={"photo": params, "title": params})
            for start in range(0, len(entries), POINTS_AT_ONCE):
                rows = slice(start, start + POINTS_AT_ONCE)
                points = [
                    models.PointStruct(
                        id=int(entry.key),
                        vector={"photo": image.tolist(), "title": text.tolist()},
                        payload={"name": entry.caption, "style": entry.style},
                    )
                    for entry, image, text in zip(entries[rows], vectors.image[rows], vectors.text[rows], strict=True)
                ]
                client.upsert("shop", points)
        return f"{server}?collection=shop&image=photo&text=title&caption=name"

    return write


FIRST = "folder, `.txt` beside each image"


def layouts(vectors: Records, fingerprint: Fingerprint, base_url: str, server: str) -> dict[str, Layout]:
    """Every layout, by the name that the table shows.

    Args:
        vectors: of the catalogue, row by row, for layouts without images.
        fingerprint: of those vectors.
        base_url: where the folder of the first layout is served.
        server: URL of a Qdrant server.
    """
    return {
        FIRST: Layout(beside, _path),
        "folder, `captions.csv`": Layout(table(".csv", ",")),
        "folder, `captions.tsv`": Layout(table(".tsv", "\t")),
        "`.jsonl` of paths": Layout(lines),
        "`.csv` of URLs": Layout(urls(base_url), fresh=True),
        "`.parquet` of paths": Layout(parquet_paths),
        "`.parquet` of bytes": Layout(parquet_bytes),
        "webdataset shards": Layout(webdataset),
        "webdataset shards of img2dataset": Layout(img2dataset, rejected=1),
        "clip-retrieval's folders": Layout(clip_retrieval(vectors), images=False),
        "`.npy` of vectors": Layout(arrays(vectors), images=False),
        "`.npz` of vectors": Layout(pair_file(".npz", vectors), images=False),
        "`.parquet` of vectors": Layout(pair_file(".parquet", vectors), images=False),
        "a memory in a folder": Layout(memory(vectors, fingerprint), images=False),
        "a Qdrant collection": Layout(
            collection(vectors, server), lambda entry: str(int(entry.key)), images=False, fresh=True
        ),
    }


def _shards(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    rest = iter(entries)
    while shard := list(islice(rest, PER_SHARD)):
        yield shard


def _member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
