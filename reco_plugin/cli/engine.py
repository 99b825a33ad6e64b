"""The engine that reads and encodes rows: this process, or a Ray cluster."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ..ingest.options import Cluster
from .flags import Given, taken

EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option(help="local: this process. ray: workers of a Ray cluster read and encode, this one writes."),
]


def cluster_of(engine: Literal["local", "ray"], given: Given) -> Cluster | None:
    """The Ray cluster of the flags; None for this process.

    Raises:
        ConfigError: flags of a cluster without --engine ray.
        MissingExtra: Ray is not installed.
    """
    from ..errors import ConfigError

    cluster = taken(Cluster, given)
    if engine == "ray":
        from ..ingest import ray_engine  # noqa: F401 - raises MissingExtra

        return cluster
    for name, value in vars(cluster).items():
        if value is not None:
            raise ConfigError(f"--{name.replace('_', '-')} {value} is about a Ray cluster: give --engine ray, too")
    return None
