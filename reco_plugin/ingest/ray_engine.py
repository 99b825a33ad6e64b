"""A run on a Ray cluster: workers read, prepare and encode, and this process writes, in order.

::

    parts ──► read_part ──► EncodeChunks ──► this process ──► Writer ──► memory
              tasks          actors           in order

Ray Data slows down stages that are ahead, and repeats the tasks of a lost worker.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..config import MemoryOptions, Settings
from ..data.rows import Rows
from ..encoder_api.dialects import is_address
from ..errors import ConfigError, DataError, importing
from ..reco import Reco
from .options import Cluster, IngestOptions
from .prepare import Known, WriterItem, make_chunks

with importing("ray", "ray", "--engine ray"):
    import ray
    import ray.data

from .ray_worker import Attempts, EncodeChunks, Job, RemoteError, pack, read_part, unpack

_READER_CPUS = 0.5
"""A reading task waits for disk and network, too."""
_CLIENT_CPUS = 0.25
"""An encoding actor that waits for a Triton server."""
_SHARE = 0.75
"""Default share of the CPUs for encoding actors."""
_ATTEMPTS = 4
"""Of a task; Ray itself would repeat a task that kills its worker forever."""


def encode_on_ray(
    rows: Rows, reco: Reco, cluster: Cluster, options: IngestOptions
) -> Generator[list[WriterItem], None, None]:
    """Encode rows on a cluster to vectors (D,), in batches and in order."""
    with connect_ray(cluster.address), closing(run_job(rows, job_of(reco, options), cluster)) as items:
        yield from make_chunks(items, options.batch_size)


@contextmanager
def connect_ray(address: str | None) -> Iterator[None]:
    """Join a cluster, or start one on this machine; keeps an existing connection."""
    _check_address(address)
    if ray.is_initialized():
        yield
        return
    ours: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    try:
        try:
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **ours)
        except Exception as error:  # nothing there, another version, or a node that is late, a bare Exception of Ray's
            raise ConfigError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
        yield
    finally:
        ray.shutdown()


def _check_address(address: str | None) -> None:
    """Refuse an address that Ray would wait for in vain, for minutes."""
    if address is None or address == "auto":
        return
    if address.startswith("ray://"):
        raise ConfigError(
            f"--address {address}: Ray Data needs its driver inside of the cluster. Run the command there, as in "
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
    shared, first = ray.put(job), time.monotonic_ns()  # no number is that of another run's part
    parts = [{"name": part.name, "number": first + n, "part": pack(part)} for n, part in enumerate(rows.parts)]
    chunks = (
        ray.data.from_items(parts, override_num_blocks=len(parts))
        .flat_map(read_part, fn_kwargs={"job": shared, "attempts": attempts}, num_cpus=_READER_CPUS)
        .map(EncodeChunks, fn_constructor_args=(shared, attempts), compute=actors, **resources)
    )
    try:
        for block in chunks.iter_batches(batch_size=None, prefetch_batches=0):  # each as soon as it is there
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
    """The actor that counts attempts; one for all runs of this process on one cluster, since it takes a process."""
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
    """The job of all workers."""
    known = Known.of(reco.memory.store.payloads(), only_known=options.only_known)
    return Job(_for_workers(reco.settings), reco.manifest.fingerprint, known, options.batch_size, Path.cwd())


def _for_workers(settings: Settings) -> Settings:
    """The settings without the memory and its key; an absolute model path; one thread per CPU."""
    model = settings.model if is_address(settings.model) else str(Path(settings.model).resolve())
    changed = {"model": model, "memory": ":memory:", "memory_api_key": None}
    threads = settings.threads or int(settings.provider != "cuda")
    return settings.model_copy(update={**changed, "memory_options": MemoryOptions(), "threads": threads})


def _configure() -> None:
    """Keep the order of the source; turn off Ray's own progress and error output."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
