"""Encode a source on a Ray cluster: workers read, prepare and encode, and this process writes in order.

::

    parts ──► read_part ──► EncodeChunks ──► this process ──► Writer ──► memory
              tasks          actors           in order

Ray Data limits how far stages run ahead, and repeats the tasks of a lost worker.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias

from ..encoders.api_dialects import is_address
from ..encoders.local import Encoder
from ..encoders.model_folder import Artifact
from ..encoders.remote import load_model, open_encoder
from ..errors import ArtifactError, ConfigError, DataError, RecoError, importing
from ..fingerprint import are_one_encoder
from ..reco import Reco
from ..settings import MemoryOptions, Settings
from ..sources.rows import Rejected, Rows, SourcePart
from ..types import Fingerprint
from .prepare import (
    DOWNLOADS,
    Prepared,
    Skipped,
    StoredRows,
    WriterItem,
    encode,
    fetch_image,
    load,
    make_chunks,
    map_in_order,
    prepare,
    read_rows,
)
from .run_options import Cluster, IngestOptions

with importing("ray", "ray", "--engine ray"):
    import ray
    import ray.data


_READER_CPUS = 0.5  # of a reading task, which also waits for disk and network
_CLIENT_CPUS = 0.25  # of an encoding actor that waits for a Triton server
_SHARE = 0.75  # of the CPUs, for encoding actors
_ATTEMPTS = 4
"""Attempts of a task; Ray would repeat a task that kills its worker forever."""


def encode_on_ray(
    rows: Rows, reco: Reco, cluster: Cluster, options: IngestOptions
) -> Generator[list[WriterItem], None, None]:
    """Encode rows on a cluster to vectors (D,), in batches and in order."""
    with connect_ray(cluster.address), closing(run_job(rows, job_of(reco, options), cluster)) as items:
        yield from make_chunks(items, options.batch_size)


@contextmanager
def connect_ray(address: str | None) -> Iterator[None]:
    """Join a cluster, or start one on this machine; an existing connection is kept."""
    _check_address(address)
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    try:
        try:
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # no cluster, another version, or a late node, for which Ray raises an Exception
            raise ConfigError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
        yield
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Refuse an address that Ray would wait for until its timeout, for minutes."""
    if address is None or address == "auto":
        return
    if address.startswith("ray://"):
        raise ConfigError(
            f"--address {address}: Ray Data needs its driver inside the cluster. Run the command there, as in "
            "ray job submit -- reco memory build … --engine ray --address auto"
        )
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Ray cluster at {address}: {error}; give host:port, as `ray start` shows it") from error


def run_job(rows: Rows, job: Job, cluster: Cluster) -> Generator[WriterItem, None, None]:
    """Encode rows on the workers, vectors (D,), in the order of the source."""
    actors, resources = _room(job.settings, cluster)
    _configure()
    here = ray.get_runtime_context()
    attempts = _attempts(here.get_node_id(), here.get_job_id()), _ATTEMPTS
    shared, first = ray.put(job), time.monotonic_ns()  # numbers are unique among runs
    parts = [{"name": part.name, "number": first + n, "part": pack(part)} for n, part in enumerate(rows.parts)]
    chunks = (
        ray.data.from_items(parts, override_num_blocks=len(parts))
        .flat_map(read_part, fn_kwargs={"job": shared, "attempts": attempts}, num_cpus=_READER_CPUS)
        .map(EncodeChunks, fn_constructor_args=(shared, attempts), compute=actors, **resources)
    )
    try:
        for block in chunks.iter_batches(batch_size=None, prefetch_batches=0):  # each block as soon as it is ready
            for chunk in block["chunk"]:
                items: list[WriterItem] | RemoteError = unpack(chunk)
                if isinstance(items, RemoteError):
                    raise items.to_error()
                yield from items
        rows.check_unchanged()
    except ray.exceptions.RayError as error:
        reason = str(error).strip().rpartition("\n")[2]  # the lines before are a trace
        raise DataError(f"the Ray cluster failed: {reason}. What was written stays") from error


@lru_cache(maxsize=1)
def _attempts(*_: str) -> Any:
    """The actor that counts attempts; all runs of this process on one cluster share it."""
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote()


def _room(settings: Settings, cluster: Cluster) -> tuple[Any, dict[str, float]]:
    """The number of actors, and the resources of each."""
    local = settings.triton_url is None
    gpus = 1.0 if local and settings.provider == "cuda" else 0.0
    cpus, has = (1.0 if local else _CLIENT_CPUS), ray.cluster_resources()
    if has.get("CPU", 0) < cpus + _READER_CPUS or has.get("GPU", 0) < gpus:
        raise ConfigError(
            f"an encoding worker needs {cpus:g} CPUs and {gpus:g} GPUs, and a reading one {_READER_CPUS:g} CPUs; the "
            f"Ray cluster has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs"
        )
    fit = min(has["CPU"] * _SHARE / cpus, has.get("GPU", 0) / gpus if gpus else float("inf"))
    most = cluster.workers or max(1, int(fit))
    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=max(1, min(most, int(fit))))
    return pool, {"num_cpus": cpus, "num_gpus": gpus}


def job_of(reco: Reco, options: IngestOptions) -> Job:
    """Make the job that all workers share."""
    stored = StoredRows.of(reco.memory.store.payloads(), only_known=options.only_known)
    return Job(
        _for_workers(reco.settings),
        reco.manifest.fingerprint,
        stored,
        options.batch_size,
        options.allow_private_urls,
        Path.cwd(),
    )


def _for_workers(settings: Settings) -> Settings:
    """Change settings for workers: no memory, no key, an absolute path of the model, one thread per CPU."""
    model = settings.model if is_address(settings.model) else str(Path(settings.model).resolve())
    changed = {"model": model, "memory": ":memory:", "memory_api_key": None}
    threads = settings.threads or int(settings.provider != "cuda")
    return settings.model_copy(update={**changed, "memory_options": MemoryOptions(), "threads": threads})


def _configure() -> None:
    """Keep the order of the source; turn off Ray's progress bars and error output."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


DatasetRow: TypeAlias = dict[str, Any]
"""Row of a Ray dataset: name and number of the part, and the part or a chunk as bytes."""


@dataclass(frozen=True)
class RemoteError:
    """Class and message of an error; some errors cannot be unpickled."""

    kind: type[RecoError]
    message: str

    def to_error(self) -> RecoError:
        """Make the error again."""
        return self.kind.__new__(self.kind, self.message)


@dataclass(frozen=True)
class Job:
    """Input of all workers; each machine gets it once."""

    settings: Settings  # the model folder has the same path on all machines
    fingerprint: Fingerprint  # of the driver's model
    stored: StoredRows  # of the memory
    batch_size: int  # rows per chunk
    allow_private_urls: bool  # of pictures
    folder: Path  # base of relative paths

    @cached_property
    def artifact(self) -> Artifact:
        """The model folder on this machine."""
        artifact = load_model(self.settings.model, self.settings)
        if not are_one_encoder(local := artifact.manifest.fingerprint, self.fingerprint):
            raise ArtifactError(
                f"{self.settings.model} on {socket.gethostname()} holds {local}, not {self.fingerprint}: every machine "
                "must see the same model folder under the same path"
            )
        return artifact

    @cached_property
    def encoder(self) -> Encoder:
        """The model, or a client of the Triton server that runs it."""
        return open_encoder(self.artifact, self.settings)


class Attempts:
    """Counts the attempts of tasks, in an actor that no task can kill."""

    def __init__(self) -> None:
        self._begun: dict[Any, int] = {}

    def begin(self, task: Any, most: int) -> int:
        """Count an attempt; returns ``most`` if there were more before, else 0."""
        self._begun[task] = self._begun.get(task, 0) + 1
        return most if self._begun[task] > most else 0


pack = partial(pickle.dumps, protocol=5)  # copies arrays once
unpack = pickle.loads  # of processes of this cluster, whose pickled code Ray runs anyway


def read_part(row: DatasetRow, job: Any, attempts: Any) -> Iterator[DatasetRow]:
    """Read, sift, fetch and prepare the rows of a part; the task of a reading worker."""
    name = row["name"]
    try:
        _begin(attempts, ("reading", row["number"]), name)
        for number, chunk in enumerate(_ready(unpack(row["part"]), _job(job))):
            yield {"name": name, "number": [row["number"], number], "chunk": pack(chunk)}
    except RecoError as error:
        yield {"name": name, "number": [row["number"], -1], "chunk": _pack_error(error)}


class EncodeChunks:
    """Encodes chunks one by one; the actor of an encoding worker."""

    def __init__(self, job: Any, attempts: Any) -> None:
        self._job, self._attempts = job, attempts

    def __call__(self, row: DatasetRow) -> DatasetRow:
        """Encode the chunk of a row."""
        try:
            _begin(self._attempts, ("encoding", *row["number"]), row["name"])  # unpacking may run out of memory
            chunk = unpack(row["chunk"])
            if isinstance(chunk, RemoteError):
                return {"chunk": row["chunk"]}
            return {"chunk": pack(encode(chunk, _job(self._job).encoder))}
        except RecoError as error:
            return {"chunk": _pack_error(error)}


def _ready(part: SourcePart, job: Job) -> Iterator[list[Prepared | Skipped | Rejected]]:
    chunks = ([job.stored.sift(load(row)) for row in chunk] for chunk in make_chunks(read_rows([part]), job.batch_size))
    fetch = partial(fetch_image, allow_private=job.allow_private_urls)
    with ThreadPoolExecutor(DOWNLOADS) as downloads:
        for chunk in map_in_order(downloads, fetch, chunks, window=2):
            yield [prepare(row, job.encoder.preparation) for row in chunk]


@lru_cache(maxsize=1)
def _job(reference: Any) -> Job:
    """Unpack the job, once per process."""
    job: Job = ray.get(reference)
    with suppress(OSError):  # not needed for absolute paths
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
