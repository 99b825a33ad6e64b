"""Options of where rows are read and encoded: in this process, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
_OPTIONS = {
    "engine": (EngineOption, "local"),
    "address": (AddressOption, None),
    "workers": (WorkersOption, None),
    "gpus_per_worker": (GpusOption, None),
}


def takes_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a command with a parameter ``cluster: Cluster | None``: on the command line, four options say it.

    Typer makes options of a signature, so they stand there in its place.
    """
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, (kind, default) in _OPTIONS.items()
    ]
    own = signature(command, locals={"Cluster": object}, eval_str=True).parameters.values()
    parameters = [shown for one in own for shown in (options if one.name == "cluster" else [one])]

    @wraps(command)
    def run(**given: Any) -> None:
        cluster = cluster_of(**{name: given.pop(name) for name in _OPTIONS})
        command(cluster=cluster, **given)

    run.__signature__ = signature(run).replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def cluster_of(
    engine: Engine, address: str | None, workers: int | None, gpus_per_worker: float | None
) -> Cluster | None:
    """The cluster that was asked for; None for this process.

    Raises:
        ConfigError: something is said of a cluster, and none was asked for.
        MissingExtra: Ray is not installed.
    """
    if engine == "ray":
        from ..ingest.ray_engine import Cluster

        return Cluster(address, workers, gpus_per_worker)
    from ..errors import ConfigError

    for name, value in (("--address", address), ("--workers", workers), ("--gpus-per-worker", gpus_per_worker)):
        if value is not None:
            raise ConfigError(f"{name} {value} is about a Ray cluster: give --engine ray, too")
    return None
