"""Fuse a query with what was retrieved for it (paper, section 3.3)."""

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
        """Of the fusion: paper, reco, training-free."""
        ...

    @property
    def text_gate(self) -> TextGate | None:
        """What it was trained to trust; None: the memory's own calibration decides."""
        ...

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """Refine (B, D) by (B, K, D); a row without any trusted neighbour comes back exactly as it was."""
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
        """Run the modality's fusion graph."""
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
    """Verified neighbours added to the query; no learned weights, so it works with any CLIP at once."""

    name = "training-free"
    text_gate: TextGate | None = None

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """See :func:`reco_plugin.gate.fuse_training_free`."""
        return Fused(*fuse_training_free(modality, vectors, neighbours.vectors, trust))


def open_fuser(artifact: Artifact, settings: Settings) -> Fuser:
    """The fuser that the settings name."""
    return TrainingFreeFuser() if settings.fuser == "training-free" else GraphFuser(artifact, settings)
