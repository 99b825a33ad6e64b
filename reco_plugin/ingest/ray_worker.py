"""The workers of a Ray cluster: read and prepare a part; encode chunks of rows.

A chunk is a few hundred rows, pickled once: Ray copies its bytes without parsing them. Errors are sent as chunks, so
that they keep their class and all rows before them are written.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import ray

from ..artifact import Artifact
from ..config import Settings
from ..data.rows import Rejected, SourcePart
from ..encode import Encoder
from ..encoder_api import load_model, open_encoder
from ..errors import ArtifactError, DataError, RecoError
from ..fingerprint import are_one_encoder
from ..types import Fingerprint
from .prepare import (
    DOWNLOADS,
    Known,
    Prepared,
    Skipped,
    encode,
    fetch_image,
    in_order,
    load,
    make_chunks,
    prepare,
    read_rows,
)

DatasetRow: TypeAlias = dict[str, Any]
"""Row of a Ray dataset: name of the part, and part or chunk as bytes."""


@dataclass(frozen=True)
class RemoteError:
    """An error for the driver: class and message, since some errors do not unpickle."""

    kind: type[RecoError]
    message: str

    def to_error(self) -> RecoError:
        """The error itself."""
        return self.kind.__new__(self.kind, self.message)


@dataclass(frozen=True)
class Job:
    """Input of every worker; each machine gets it once."""

    settings: Settings  # of the model; the model folder has the same path everywhere
    fingerprint: Fingerprint  # of the driver's model
    known: Known  # ids and rows of the memory
    batch_size: int  # rows per chunk
    folder: Path  # of relative paths

    @cached_property
    def artifact(self) -> Artifact:
        """The model folder on this machine."""
        artifact = load_model(self.settings.model, self.settings)
        if not are_one_encoder(found := artifact.manifest.fingerprint, self.fingerprint):
            raise ArtifactError(
                f"{self.settings.model} on {socket.gethostname()} holds {found}, not {self.fingerprint}: every machine "
                "must see the same model folder under the same path"
            )
        return artifact

    @cached_property
    def encoder(self) -> Encoder:
        """The model, or a client of the Triton server that runs it."""
        return open_encoder(self.artifact, self.settings)


class Attempts:
    """Counts attempts of tasks, outside of the workers that they may kill. Runs as an actor."""

    def __init__(self) -> None:
        self._begun: dict[Any, int] = {}

    def begin(self, task: Any, most: int) -> int:
        """Count an attempt; how many were lost where that was more than ``most``, else 0."""
        self._begun[task] = self._begun.get(task, 0) + 1
        return most if self._begun[task] > most else 0


def pack(content: Any) -> bytes:
    """Anything as bytes; arrays are copied once."""
    return pickle.dumps(content, protocol=5)


def unpack(packed: bytes) -> Any:
    """The content of :func:`pack`, by a process of this cluster."""
    return pickle.loads(packed)  # noqa: S301 - Ray itself runs pickled code of the same processes


def read_part(row: DatasetRow, job: Any, attempts: Any) -> Iterator[DatasetRow]:
    """Read, sift, fetch and prepare the rows of one part; the task of a reading worker."""
    name = row["name"]
    try:
        _begin(attempts, ("reading", row["number"]), name)
        for number, chunk in enumerate(_ready(unpack(row["part"]), _job(job))):
            yield {"name": name, "number": [row["number"], number], "chunk": pack(chunk)}
    except RecoError as error:
        yield {"name": name, "number": [row["number"], -1], "chunk": _pack_error(error)}


class EncodeChunks:
    """Encodes chunks, one after the other; the actor of an encoding worker."""

    def __init__(self, job: Any, attempts: Any) -> None:
        self._job, self._attempts = job, attempts

    def __call__(self, row: DatasetRow) -> DatasetRow:
        """The chunk of a row, encoded."""
        try:
            _begin(self._attempts, ("encoding", *row["number"]), row["name"])  # unpacking may take the last memory
            chunk = unpack(row["chunk"])
            if isinstance(chunk, RemoteError):
                return {"chunk": row["chunk"]}
            return {"chunk": pack(encode(chunk, _job(self._job).encoder))}
        except RecoError as error:
            return {"chunk": _pack_error(error)}


def _ready(part: SourcePart, job: Job) -> Iterator[list[Prepared | Skipped | Rejected]]:
    chunks = ([job.known.sift(load(row)) for row in chunk] for chunk in make_chunks(read_rows([part]), job.batch_size))
    with ThreadPoolExecutor(DOWNLOADS) as downloads:
        for chunk in in_order(downloads, fetch_image, chunks, window=2):
            yield [prepare(row, job.encoder.preparation) for row in chunk]


@lru_cache(maxsize=1)
def _job(reference: Any) -> Job:
    """The job, unpacked once per process."""
    job: Job = ray.get(reference)
    with suppress(OSError):  # a source of absolute paths does not need it
        os.chdir(job.folder)
    return job


def _begin(attempts: Any, task: Any, part: str) -> None:
    counter, most = attempts
    if lost := ray.get(counter.begin.remote(task, most)):
        raise DataError(
            f"a worker of the Ray cluster was lost {lost} times over {task[0]} {part}: too little memory is the "
            "usual reason (see Ray's logs; a smaller --batch-size or more memory per worker helps), a file that "
            "crashes its decoder another. What was written stays; run it again to go on"
        )


def _pack_error(error: RecoError) -> bytes:
    return pack(RemoteError(type(error), str(error)))
