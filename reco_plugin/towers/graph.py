"""A tower in a file: what of the graph it is, what it takes, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import utils

from ..errors import ArtifactError
from ..types import Modality

_MAIN: Mapping[Modality, str] = {"image": "pixel_values", "text": "input_ids"}
_OTHERS = ("attention_mask", "position_ids", "token_type_ids")
_OUTPUTS: Mapping[Modality, tuple[str, ...]] = {
    "image": ("image_embeds", "pooler_output"),
    "text": ("text_embeds", "pooler_output"),
}
"""Names of the vector; SigLIP's towers have no projection, and call it by the latter."""


@dataclass(frozen=True)
class Tower:
    """One tower of a file, alone."""

    modality: Modality
    path: Path  # of the file
    model: onnx.ModelProto  # what the vector needs
    output: str  # name of the vector (B, D)

    @property
    def main(self) -> str:
        """Name of its pixels (B, 3, H, W) or token ids (B, L)."""
        return _MAIN[self.modality]

    @property
    def types(self) -> dict[str, int]:
        """Element types of its inputs, as ONNX numbers them."""
        return {one.name: one.type.tensor_type.elem_type for one in self.model.graph.input}

    @property
    def opset(self) -> int:
        """Version of the operators."""
        return int(next(one.version for one in self.model.opset_import if one.domain in ("", "ai.onnx")))


def load_tower(path: Path, modality: Modality) -> Tower:
    """Read a tower, cut out of the graph of both where it is one.

    Raises:
        ArtifactError: the file cannot be read, or has no such tower.
    """
    try:
        model = onnx.load(path)
    except Exception as error:  # of protobuf's, or of a missing file of weights
        raise ArtifactError(f"{path} cannot be read as an ONNX graph ({error}): fetch it again") from None
    weights = {one.name for one in model.graph.initializer}
    given = [one.name for one in model.graph.input if one.name not in weights]
    made = [one.name for one in model.graph.output]
    output = next((name for name in _OUTPUTS[modality] if name in made), None)
    if output is None or _MAIN[modality] not in given:
        raise ArtifactError(
            f"{path} has the inputs {', '.join(given)} and the outputs {', '.join(made)}, and the tower of {modality}s "
            f"has {_MAIN[modality]} and {' or '.join(_OUTPUTS[modality])}: export it by optimum, with its projection"
        )
    inputs = [name for name in given if name == _MAIN[modality] or (modality == "text" and name in _OTHERS)]
    return Tower(modality, path, utils.Extractor(model).extract_model(inputs, [output]), output)
