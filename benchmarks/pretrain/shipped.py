"""The shipped mini CLIP in torch again, read from its ONNX graphs: its training's own weights are not shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from open_clip import CLIP
from torch import nn

from reco_plugin.artifact import Artifact
from reco_plugin.train.encoder import FrozenClip

from .towers import MODEL_CFG

SCALE = 30.0
"""Where the logit scale starts; the graphs do not hold it. Of 10 … 100 the least loss on pairs of seen entities."""
_SPLIT = {f"split_split_{place}": f"visual.attnpool.{name}_proj" for place, name in enumerate("qkv")}


def load_shipped(folder: Path) -> FrozenClip:
    """Read the mini CLIP of a model folder, float32; batch norms are folded into the convolutions, as in the graph.

    Raises:
        ArtifactError: the folder is not complete.
        RuntimeError: the graphs are those of another architecture.
    """
    artifact = Artifact.load(folder)
    model = CLIP(**MODEL_CFG)
    _fold_norms(model)
    state: dict[str, torch.Tensor] = {"logit_scale": torch.tensor(SCALE).log()}
    for tower in ("clip_image", "clip_text"):
        state |= {name: torch.from_numpy(value) for name, value in _weights(artifact.graph(tower)).items()}
    model.load_state_dict(state)
    manifest = artifact.manifest
    tokenizer = artifact.tokenizer.read_text(encoding="utf-8")
    return FrozenClip(manifest.name, model.eval(), manifest.image, manifest.text, tokenizer, manifest.digest)


def _fold_norms(model: CLIP) -> None:
    for block in model.visual.modules():
        for name, child in list(block.named_children()):
            if isinstance(child, nn.Conv2d):
                child.bias = nn.Parameter(torch.zeros(child.out_channels))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(block, name, nn.Identity())


def _weights(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Parameter name -> value, float32. The exporter transposes weights of linear layers and names them by number."""
    graph = onnx.load(path).graph
    stored = {w.name.removesuffix("_fp16"): numpy_helper.to_array(w) for w in graph.initializer}
    floats = {name: value.astype(np.float32) for name, value in stored.items() if value.dtype.kind == "f"}
    found = {}
    for name, value in floats.items():
        if name.startswith("model.") and name != "model.attn_mask":
            found[name.removeprefix("model.").replace(".weight_bias", ".bias")] = value
    if "unsqueeze" in floats:  # the image tower's attention pooling
        found["visual.attnpool.positional_embedding"] = floats["unsqueeze"][:, 0]
        for name, bias in zip(_SPLIT.values(), np.split(floats["cat_1"], 3), strict=True):
            found[f"{name}.bias"] = bias
    added = {node.input[0]: node.input[1] for node in graph.node if node.op_type == "Add"}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in floats and node.output[0] in added:
            bias = added[node.output[0]].removeprefix("model.")
            layer = f"{_SPLIT[bias]}.weight" if bias in _SPLIT else bias.replace("bias", "weight")
            found[layer] = np.ascontiguousarray(floats[node.input[1]].T)
    return found
