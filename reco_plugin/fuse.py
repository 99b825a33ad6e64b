"""Fuse a query with its neighbours (paper, section 3.3)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .artifact import Artifact, fusion_graph
from .config import Settings
from .gate import TextGate, fuse_training_free
from .sessions import Session, open_graph
from .types import Modality, Neighbours, Vectors


class Fused(NamedTuple):
    """Refined vectors (B, D), unit-norm, and the share of each neighbour in them (B, K)."""

    vectors: Vectors
    weights: npt.NDArray[np.float32]


class Fuser(Protocol):
    """Something that refines queries by their neighbours."""

    @property
    def name(self) -> str:
        """Kind of the fusion: paper, reco, training-free or mean."""
        ...

    @property
    def text_gate(self) -> TextGate | None:
        """Its gate for text queries, where it was trained with one; None: the memory's calibration decides."""
        ...

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Refine (B, D) by (B, K, D) with trust (B, K); a row without any trusted neighbour stays bit for bit."""
        ...


class GraphFuser:
    """The fusion graphs of a model folder; loaded at first use."""

    def __init__(self, artifact: Artifact, settings: Settings) -> None:
        self.name: str = artifact.manifest.fusion.fuser
        self.text_gate = artifact.manifest.fusion.text_gate
        self._artifact, self._settings = artifact, settings
        self._sessions: dict[Modality, Session] = {}

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Run the modality's fusion graph on (B, D), (B, K, D) and (B, K)."""
        if modality not in self._sessions:
            self._sessions[modality] = open_graph(self._artifact, fusion_graph(modality), self._settings)
        inputs = {
            "query": vectors,
            "neighbours": neighbours.vectors,
            "similarity": neighbours.similarity,
            "trust": trust,
        }
        outputs = self._sessions[modality].run(inputs)
        return Fused(outputs["refined"].astype(np.float32), outputs["weights"].astype(np.float32))


class TrainingFreeFuser:
    """Adds the neighbours to the query by trust; without learned weights, so it works with any CLIP at once."""

    name = "training-free"
    text_gate: TextGate | None = None

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Refine (B, D), see :func:`reco_plugin.gate.fuse_training_free`."""
        return Fused(*fuse_training_free(modality, vectors, neighbours.vectors, trust))


def open_fuser(artifact: Artifact, settings: Settings) -> Fuser:
    """Open the fuser that the settings name."""
    return TrainingFreeFuser() if settings.fuser == "training-free" else GraphFuser(artifact, settings)
