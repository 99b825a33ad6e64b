"""Where rows are read and encoded: in this process, or on a Ray cluster."""

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
    """The cluster that was asked for; None for this process.

    Raises:
        ConfigError: something is said of a cluster, and none was asked for.
        MissingExtra: Ray is not installed.
    """
    from ..errors import ConfigError

    cluster = taken(Cluster, given)
    if engine == "ray":
        from ..ingest import ray_engine  # noqa: F401 - says what to install

        return cluster
    for name, value in vars(cluster).items():
        if value is not None:
            raise ConfigError(f"--{name.replace('_', '-')} {value} is about a Ray cluster: give --engine ray, too")
    return None
