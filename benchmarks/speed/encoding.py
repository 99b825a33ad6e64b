"""Runtimes against open_clip in eager torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from reco_plugin.encoders.model_folder import Artifact, clip_graph
from reco_plugin.encoders.preprocess import Tokenizer, cut_to_longest
from reco_plugin.encoders.runtimes.onnxruntime import OrtSession
from reco_plugin.export.export_options import Precision
from reco_plugin.export.open_clip import FrozenClip, load_frozen
from reco_plugin.settings import load_settings
from reco_plugin.types import MODALITIES, Modality

from ..page import table
from .inputs import VIT, Given, batches, vit
from .turns import take_turns

BATCHES = (1, 8, 32)
EAGER = "open_clip, eager"
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
Encode = Callable[[], npt.NDArray[np.float32]]


def encoding(given: Given) -> str:
    """Speed relative to eager torch, and the least cosine to its vectors in all columns."""
    clip = load_frozen(VIT, random_weights=True)
    models = {precision: Artifact.load(vit(given.folder, precision)) for precision in PRECISIONS}
    columns = [(modality, batch) for modality in reversed(MODALITIES) for batch in BATCHES]
    cells: dict[str, list[str]] = {}
    cosines: dict[str, float] = {}
    for place, (modality, batch) in enumerate(columns):
        ways = encoders(clip, models, modality, batch)
        first = ways[EAGER]()
        turns = take_turns(ways, given.rounds, calls=max(1, 4 // batch))
        for name, encode in ways.items():
            seconds = turns.least(name)
            cell = f"{turns.least(EAGER) / seconds:.1f}" if name != EAGER else f"{seconds * 1000:.0f} ms"
            cells.setdefault(name, [""] * len(columns))[place] = cell
            cosines[name] = min(cosines.get(name, 1.0), float((first * encode()).sum(1).min()))
    head = ["", *(f"{modality} × {batch}" for modality, batch in columns), "least cosine"]
    return table(head, [[name, *row, f"{cosines[name]:.5f}"] for name, row in cells.items()])


def encoders(
    clip: FrozenClip, models: Mapping[Precision, Artifact], modality: Modality, batch: int
) -> dict[str, Encode]:
    """Runtime -> encodes the batch to unit-norm (B, D); pixels are decoded before."""
    plain, name, settings = models["fp32"], clip_graph(modality), load_settings()
    inputs, uncut, whole = _inputs(clip, plain, modality, batch)
    encode: Any = clip.model.encode_image if modality == "image" else clip.model.encode_text

    def by_torch(encode: Any, bf16: bool = False) -> npt.NDArray[np.float32]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found: npt.NDArray[np.float32] = F.normalize(encode(whole).float(), dim=-1).numpy()
            return found

    sessions: dict[str, Any] = {
        f"ONNX Runtime, {precision}": OrtSession(models[precision].graph(name), settings) for precision in PRECISIONS
    }
    found: dict[str, Encode] = {
        EAGER: partial(by_torch, encode),
        "open_clip, compiled": partial(by_torch, torch.compile(encode)),
        "open_clip, bf16": partial(by_torch, encode, bf16=True),
    }
    if modality == "text":
        whole_session = sessions["ONNX Runtime, fp32"]
        found["ONNX Runtime, fp32, 77 tokens"] = lambda: whole_session.run(uncut)["features"]
    return found | {way: lambda session=session: session.run(inputs)["features"] for way, session in sessions.items()}


def _inputs(
    clip: FrozenClip, model: Artifact, modality: Modality, batch: int
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Inputs of our graph, the same with all tokens, and those of open_clip: normalized pixels, or all tokens."""
    items = batches(modality, batch)()
    if modality == "image":
        pixels = np.stack([np.asarray(item) for item in items])
        mean, std = (torch.tensor(x)[:, None, None] for x in (clip.image.mean, clip.image.std))
        ours = {"pixels": pixels}
        return ours, ours, (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
    ids = Tokenizer(model.tokenizer, clip.text)(items).ids
    return {"tokens": cut_to_longest(ids, clip.text, exact=True)}, {"tokens": ids}, torch.from_numpy(ids).long()
