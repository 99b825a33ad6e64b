"""Torch fusions behind the fuser protocol: to evaluate a training run before it is exported."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ..fuse import Fused
from ..types import Modality, Neighbours, Vectors
from .loop import Fusions


class TorchFuser:
    """A fuser that runs the trained modules themselves."""

    def __init__(self, fusions: Fusions, *, retrieval: bool = True) -> None:
        """With ``retrieval=False`` neighbours carry nothing: the control that trains and runs without retrieval."""
        self.name: str = fusions.config.fuser
        self.text_gate = fusions.text_gate
        self._fusions, self._retrieval = fusions.eval(), retrieval

    def fuse(
        self, modality: Modality, vectors: Vectors, neighbours: Neighbours, trust: npt.NDArray[np.float32]
    ) -> Fused:
        """See :meth:`reco_plugin.fuse.Fuser.fuse`."""
        inputs = [vectors, neighbours.vectors, neighbours.similarity, trust]
        if not self._retrieval:
            inputs[1:] = [np.zeros_like(inputs[1]), np.zeros_like(inputs[2]), np.ones_like(inputs[3])]
        with torch.inference_mode():
            refined, weights = self._fusions.sides[modality](
                *(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs)
            )
        return Fused(refined.numpy(), weights.numpy())
