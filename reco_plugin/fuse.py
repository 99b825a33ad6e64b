"""Fuse a query with its neighbours by a graph of the model folder (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .artifact import Artifact
from .config import Settings
from .sessions import Graphs, OpenGraph, open_graph
from .types import FuserName, Modality, Neighbours, Vectors


class Fused(NamedTuple):
    """Refined vectors (B, D), unit-norm, and the share of each neighbour in them (B, K)."""

    vectors: Vectors
    weights: npt.NDArray[np.float32]


class Fuser(Protocol):
    """Something that refines queries by their neighbours alone."""

    @property
    def name(self) -> str:
        """Kind of the fusion: paper or mean."""
        ...

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Refine (B, D) by (B, K, D) with trust (B, K); a row without any trusted neighbour stays bit for bit."""
        ...


class GraphFuser:
    """Fusion graphs of a model folder; loaded at first use."""

    def __init__(
        self, artifact: Artifact, settings: Settings, name: FuserName, open_graph: OpenGraph = open_graph
    ) -> None:
        self.name: str = name
        self._names = artifact.manifest.fusion_graphs(name)
        self._graphs = Graphs(artifact, settings, open_graph)

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Run the modality's fusion graph on (B, D), (B, K, D) and (B, K)."""
        inputs = {
            "query": vectors,
            "neighbours": neighbours.vectors,
            "similarity": neighbours.similarity,
            "trust": trust,
        }
        outputs = self._graphs[self._names[modality]].run(inputs)
        return Fused(outputs["refined"].astype(np.float32), outputs["weights"].astype(np.float32))


def open_fusers(
    artifact: Artifact, settings: Settings, open_graph: OpenGraph = open_graph
) -> Mapping[FuserName, Fuser]:
    """The fusions of a model folder besides the closed form, which needs no graph in this process."""
    return {
        name: GraphFuser(artifact, settings, name, open_graph) for name in artifact.manifest.fusers if name != "reco"
    }
