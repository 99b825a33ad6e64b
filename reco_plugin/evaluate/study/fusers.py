"""Fusers around another: a gate that is opened further or less far, and one whose neighbours carry nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...fuse import Fused, Fuser
from ...gate import TextGate
from ...types import Modality, Neighbours, Vectors


@dataclass(frozen=True)
class ScaledTrust:
    """Scales trust before a fuser sees it.

    Attributes:
        fuser: the real one.
        openness: factor; 1 leaves the gate as it is, 0 closes it. Trust stays at most 1.
    """

    fuser: Fuser
    openness: float

    @property
    def name(self) -> str:
        """Of the fusion."""
        return self.fuser.name

    @property
    def text_gate(self) -> TextGate | None:
        """Of the fusion."""
        return self.fuser.text_gate

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """See :meth:`reco_plugin.fuse.Fuser.fuse`."""
        scaled = np.clip(trust * np.float32(self.openness), 0.0, 1.0).astype(np.float32)
        if not scaled.any():
            return Fused(vectors.copy(), np.zeros_like(scaled))
        return self.fuser.fuse(modality, vectors, neighbours, scaled)


@dataclass(frozen=True)
class WithoutRetrieval:
    """Runs a fusion on neighbours that carry nothing, as in the control that is trained without retrieval."""

    fuser: Fuser

    @property
    def name(self) -> str:
        """Of the fusion."""
        return f"{self.fuser.name}, no retrieval"

    @property
    def text_gate(self) -> TextGate | None:
        """Of the fusion."""
        return self.fuser.text_gate

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """See :meth:`reco_plugin.fuse.Fuser.fuse`."""
        nothing = replace(
            neighbours,
            vectors=np.zeros_like(neighbours.vectors),
            similarity=np.zeros_like(neighbours.similarity),
        )
        return self.fuser.fuse(modality, vectors, nothing, np.ones_like(trust))
