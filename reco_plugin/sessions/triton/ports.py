"""Inputs and outputs of a graph, from the model folder or from a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ArtifactError, importing

CHECKSUM = "sha256"
"""Parameter of ``config.pbtxt``: the checksum of its graph."""


@dataclass(frozen=True)
class Port:
    """One input or output; dimensions without the batch, -1 is any."""

    name: str
    type: str
    dims: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.type.removeprefix('TYPE_')}[{', '.join(map(str, self.dims))}]"


@dataclass(frozen=True)
class Ports:
    """All ports of one graph, sorted by name, since their order has no meaning."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    max_batch: int  # rows of one request at most; 0: no batches
    checksum: str | None  # of the graph, if the configuration has it

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Ports:
        """Read Triton's model configuration in its JSON form."""
        checksum = config.get("parameters", {}).get(CHECKSUM, {})
        return cls(
            _ports(config.get("input", ())),
            _ports(config.get("output", ())),
            int(config.get("max_batch_size", 0)),
            checksum.get("string_value"),
        )

    def __str__(self) -> str:
        inputs, outputs = (", ".join(map(str, ports)) for ports in (self.inputs, self.outputs))
        return f"{inputs} -> {outputs}"


def read_config(path: Path) -> Ports:
    """Read ``config.pbtxt``.

    Raises:
        ArtifactError: it is missing or not a model configuration.
        MissingExtra: the Triton client is not installed.
    """
    with importing("tritonclient", "triton", "running models on a Triton server"):
        from google.protobuf import json_format, text_format
        from tritonclient.grpc.model_config_pb2 import ModelConfig
    try:
        config = text_format.Parse(path.read_text("utf-8"), ModelConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): export the model again") from error
    return Ports.of(json_format.MessageToDict(config, preserving_proto_field_name=True))


def _ports(listed: Any) -> tuple[Port, ...]:
    found = (Port(port["name"], port["data_type"], tuple(map(int, port["dims"]))) for port in listed)
    return tuple(sorted(found, key=lambda port: port.name))
