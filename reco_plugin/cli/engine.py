"""Options of where a memory is built: in this process, or on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ..ingest.ray_engine import Cluster

Engine = Literal["local", "ray"]
EngineOption = Annotated[
    Engine,
    typer.Option(help="local: this process. ray: workers of a Ray cluster read and encode, this one writes."),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Ray cluster that this machine is in; auto finds it.",
        show_default="a cluster of this machine alone",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Encoding workers of the cluster, at most.", show_default="as many as there is room for"),
]
GpusOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        min=0,
        help="GPUs of an encoding worker, may be a fraction; wants the setting provider=cuda.",
        show_default="1 with provider=cuda, else 0",
    ),
]


def cluster_of(engine: Engine, address: str | None, workers: int | None, gpus: float | None) -> Cluster | None:
    """The cluster that was asked for; None for this process.

    Raises:
        ConfigError: something is said of a cluster, and none was asked for.
        MissingExtra: Ray is not installed.
    """
    if engine == "ray":
        from ..ingest.ray_engine import Cluster

        return Cluster(address, workers, gpus)
    from ..errors import ConfigError

    for name, value in (("--address", address), ("--workers", workers), ("--gpus-per-worker", gpus)):
        if value is not None:
            raise ConfigError(f"{name} {value} is about a Ray cluster: give --engine ray, too")
    return None
